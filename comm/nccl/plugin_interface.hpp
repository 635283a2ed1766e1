// What liblockstep_nccl.so shows: one C function, checked before anything of C++ crosses the border.
#pragma once

#include <memory>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm::nccl {

/// The name of the one symbol that the plugin exports: a PluginEntry.
inline constexpr const char* kEntryName = "lockstep_comm_plugin";

/// What the entry returns. `interface_id` stays the first member whatever changes: it says whether the others are what the program takes them for.
struct Plugin {
  const char* interface_id;  ///< LOCKSTEP_COMM_INTERFACE of the build
  /// `control` is a communicator of the same ranks over host memory; the new one owns it.
  Result<std::unique_ptr<Communicator>> (*make)(std::unique_ptr<Communicator> control, const CommOptions& options);
  /// Whether this rank has a device that `make` could use.
  Status (*probe)(const CommOptions& options);
};
using PluginEntry = const Plugin* (*)();

}  // namespace lockstep::comm::nccl
