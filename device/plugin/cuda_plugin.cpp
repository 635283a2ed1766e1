#include "device/plugin/cuda_plugin.hpp"

#include <dlfcn.h>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lockstep::device::plugin {

namespace {

constexpr const char* kFile = "liblockstep_cuda.so";
constexpr const char* kAdvice = "docs/gpu.md tells how to get it";

std::vector<std::filesystem::path> plugin_folders(const DeviceOptions& options) {
  if (!options.plugin_folder.empty()) {
    return {options.plugin_folder};
  }
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  return {program / "plugins", (program / LOCKSTEP_PLUGIN_FOLDER_FROM_PROGRAM).lexically_normal()};
}

Result<std::filesystem::path> find_plugin(const DeviceOptions& options) {
  const std::vector<std::filesystem::path> folders = plugin_folders(options);
  std::vector<std::string> looked_in;
  for (const std::filesystem::path& folder : folders) {
    std::error_code error;
    if (std::filesystem::exists(folder / kFile, error)) {
      return folder / kFile;
    }
    looked_in.push_back(folder.string());
  }
  return Error{ErrorCode::kUnsupported, fmt::format("the CUDA backend ({}) is not in {}; {}", kFile, fmt::join(looked_in, " or "), kAdvice)};
}

}  // namespace

Result<const Plugin*> open_cuda_plugin(const DeviceOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::filesystem::path file, find_plugin(options));
  // All symbols now: one that the installed runtime lacks is an error here and not a crash in a step. Local: its names are its own.
  void* const library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = ::dlerror();
    return Error{ErrorCode::kUnsupported,
                 fmt::format("the CUDA backend cannot be loaded: {}; it needs the CUDA 13 runtime ({})", reason == nullptr ? "unknown" : reason, kAdvice)};
  }
  void* const symbol = ::dlsym(library, kEntryName);
  if (symbol == nullptr) {
    return Error{ErrorCode::kUnsupported, fmt::format("{} is no plugin of lockstep: it has no {}; install it again", file.string(), kEntryName)};
  }
  const Plugin* const plugin = reinterpret_cast<PluginEntry>(symbol)();  // POSIX: an object pointer of dlsym is a function's
  if (std::string_view(plugin->interface_id) != LOCKSTEP_DEVICE_INTERFACE) {
    return Error{ErrorCode::kUnsupported, fmt::format("{} is of another build ({}, expected {}): install the one that came with this program", file.string(),
                                                      plugin->interface_id, LOCKSTEP_DEVICE_INTERFACE)};
  }
  return plugin;
}

Status probe_cuda(const DeviceOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Plugin* plugin, open_cuda_plugin(options));
  return plugin->probe(options);
}

Result<std::unique_ptr<Device>> make_cuda_device(const DeviceOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Plugin* plugin, open_cuda_plugin(options));
  return plugin->make(options);
}

}  // namespace lockstep::device::plugin
