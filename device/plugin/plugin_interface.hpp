// What a device backend that is a plugin shows: one C function, checked before anything of C++ crosses the border.
#pragma once

#include <memory>

#include "lockstep/device/device.hpp"

namespace lockstep::device::plugin {

/// The name of the one symbol that a plugin exports: a PluginEntry.
inline constexpr const char* kEntryName = "lockstep_device_plugin";

/// What the entry returns. `interface_id` stays the first member whatever changes: it says whether the others are what the program takes them for.
struct Plugin {
  const char* interface_id;  ///< LOCKSTEP_DEVICE_INTERFACE of the build: version, compiler, and a hash of the headers that both sides include
  Status (*probe)(const DeviceOptions& options);
  Result<std::unique_ptr<Device>> (*make)(const DeviceOptions& options);
};
using PluginEntry = const Plugin* (*)();

}  // namespace lockstep::device::plugin
