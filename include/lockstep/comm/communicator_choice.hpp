// Which communicator carries a group's agreement and rows: the hosts', or the devices' where all ranks can use one.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

/// The name by which choose_communicator looks for the best one.
inline constexpr std::string_view kAutoCommunicator = "auto";
/// What --communicator may be: kAutoCommunicator, and those of the table that serve several processes.
[[nodiscard]] std::span<const std::string_view> communicator_names();

struct CommunicatorWish {
  std::string_view name = kAutoCommunicator;  ///< of communicator_names(); the same on all ranks
  bool computes_on_device = false;            ///< this rank has a device with memory of its own
};

/// Whether this rank can use the communicator that is wished for by name, before it meets the others.
/// Errors  as choose_communicator's about this rank.      Cost  may open a plugin.
[[nodiscard]] Status check_communicator(const CommunicatorWish& wish, const CommOptions& options);

struct CommunicatorChoice {
  std::unique_ptr<Communicator> communicator;
  std::string note;  ///< for the log: which and why; empty where there was nothing to choose
};

/// The communicator to use, made over `hosts`, which connects the same ranks by their hosts. Collective: all ranks take the same one. By kAutoCommunicator that
/// of the devices where every rank can use it, else `hosts`.
/// Errors  kInvalidArgument: an unknown name, with the known ones; kDiverged: ranks with different wishes; kUnsupported: the named one cannot be used on this
/// rank or on another; those of `hosts` and of the backend's start.
[[nodiscard]] Result<CommunicatorChoice> choose_communicator(std::unique_ptr<Communicator> hosts, const CommunicatorWish& wish, const CommOptions& options);

}  // namespace lockstep::comm
