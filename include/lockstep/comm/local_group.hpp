// LocalGroup: N communicators in one process, one per thread; the reference for all others, and what most tests run on.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

/// What a test may see and disturb. `before` is called on the calling rank's thread before each start and wait, outside every lock; it may delay, record, or
/// fail the call.
struct LocalGroupHooks {
  std::function<Status(int rank, std::string_view operation)> before;
};

/// Ownership  the communicators share the group's state and may outlive this handle.      Threads  `communicator` from any; each Communicator from one at a
/// time.
class LocalGroup {
 public:
  explicit LocalGroup(int size, LocalGroupHooks hooks = {});
  [[nodiscard]] std::unique_ptr<Communicator> communicator(int rank);
  /// Makes every wait of the group, present and future, fail with kPeerLost naming `rank`: the in-process form of a dead rank.
  void mark_lost(int rank);
  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace lockstep::comm
