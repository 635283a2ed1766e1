#include "comm/nccl/nccl_backend.hpp"

#include <dlfcn.h>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "comm/local/local_backend.hpp"
#include "comm/mpi/mpi_backend.hpp"
#include "comm/nccl/plugin_interface.hpp"

namespace lockstep::comm {

namespace {

constexpr const char* kFile = "liblockstep_nccl.so";
constexpr const char* kAdvice = "docs/gpu.md tells how to get it";

std::vector<std::filesystem::path> plugin_folders(const CommOptions& options) {
  if (!options.plugin_folder.empty()) {
    return {options.plugin_folder};
  }
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  return {program / "plugins", (program / LOCKSTEP_PLUGIN_FOLDER_FROM_PROGRAM).lexically_normal()};
}

Result<std::filesystem::path> find_plugin(const CommOptions& options) {
  std::vector<std::string> looked_in;
  for (const std::filesystem::path& folder : plugin_folders(options)) {
    std::error_code error;
    if (std::filesystem::exists(folder / kFile, error)) {
      return folder / kFile;
    }
    looked_in.push_back(folder.string());
  }
  return Error{ErrorCode::kUnsupported, fmt::format("the NCCL communicator ({}) is not in {}; {}", kFile, fmt::join(looked_in, " or "), kAdvice)};
}

Result<const nccl::Plugin*> open_plugin(const CommOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::filesystem::path file, find_plugin(options));
  // All symbols now: one that the installed NCCL lacks is an error here and not a crash in a step. Never closed: its threads and streams run its code.
  void* const library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = ::dlerror();
    return Error{ErrorCode::kUnsupported, fmt::format("the NCCL communicator cannot be loaded: {}; it needs the CUDA 13 runtime and NCCL 2.28 or newer ({})",
                                                      reason == nullptr ? "unknown" : reason, kAdvice)};
  }
  void* const symbol = ::dlsym(library, nccl::kEntryName);
  if (symbol == nullptr) {
    return Error{ErrorCode::kUnsupported, fmt::format("{} is no plugin of lockstep: it has no {}; install it again", file.string(), nccl::kEntryName)};
  }
  const nccl::Plugin* const plugin = reinterpret_cast<nccl::PluginEntry>(symbol)();  // POSIX: an object pointer of dlsym is a function's
  if (std::string_view(plugin->interface_id) != LOCKSTEP_COMM_INTERFACE) {
    return Error{ErrorCode::kUnsupported, fmt::format("{} is of another build ({}, expected {}): install the one that came with this program", file.string(),
                                                      plugin->interface_id, LOCKSTEP_COMM_INTERFACE)};
  }
  return plugin;
}

}  // namespace

Status probe_nccl(const CommOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const nccl::Plugin* plugin, open_plugin(options));
  return plugin->probe(options);
}

Result<std::unique_ptr<Communicator>> make_nccl_over_control(std::unique_ptr<Communicator> control, const CommOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const nccl::Plugin* plugin, open_plugin(options));
  return plugin->make(std::move(control), options);
}

Result<std::unique_ptr<Communicator>> make_nccl_communicator(const CommOptions& options) {
  // Before MPI starts, which takes long: whether there is a plugin at all.
  LOCKSTEP_ASSIGN_OR_RETURN(const nccl::Plugin* plugin, open_plugin(options));
  LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> control,
                            options.launch.world_size == 1 ? make_local_communicator(options) : make_mpi_communicator(options));
  return plugin->make(std::move(control), options);
}

}  // namespace lockstep::comm
