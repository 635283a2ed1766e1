// The CUDA backend as the table of devices sees it: a plugin, looked for when asked for, so that the program needs no CUDA library.
#pragma once

#include <filesystem>
#include <memory>

#include "device/plugin/plugin_interface.hpp"

namespace lockstep::device::plugin {

/// Loads liblockstep_cuda.so from `options.plugin_folder`, or else from beside the program (plugins/) or from where `cmake --install` puts it. It is never
/// unloaded: devices and their streams run its code.
/// Errors  kUnsupported: it is nowhere (the folders are named), cannot be loaded (why), or belongs to another build.
[[nodiscard]] Result<const Plugin*> open_cuda_plugin(const DeviceOptions& options);

/// Errors  as open_cuda_plugin, and the plugin's own.
[[nodiscard]] Status probe_cuda(const DeviceOptions& options);
[[nodiscard]] Result<std::unique_ptr<Device>> make_cuda_device(const DeviceOptions& options);

}  // namespace lockstep::device::plugin
