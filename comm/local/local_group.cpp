#include "lockstep/comm/local_group.hpp"

#include <utility>

#include <fmt/format.h>

#include "comm/local/local_backend.hpp"
#include "comm/local/local_communicator.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::comm {

LocalGroup::LocalGroup(int size, LocalGroupHooks hooks) {
  LOCKSTEP_CHECK(size >= 1, "a LocalGroup of {} ranks", size);
  state_ = std::make_shared<State>(size, std::move(hooks));
}

std::unique_ptr<Communicator> LocalGroup::communicator(int rank) {
  LOCKSTEP_CHECK(rank >= 0 && rank < state_->size, "communicator of rank {} in a LocalGroup of {}", rank, state_->size);
  {
    const std::lock_guard lock(state_->mutex);
    const auto index = static_cast<std::size_t>(rank);
    // A second one would start at operation 0 again and take the first one's part in operations that the others are past.
    LOCKSTEP_CHECK(!state_->taken[index], "the communicator of rank {} was handed out before", rank);
    state_->taken[index] = true;
  }
  return std::make_unique<LocalCommunicator>(state_, rank);
}

void LocalGroup::mark_lost(int rank) {
  LOCKSTEP_CHECK(rank >= 0 && rank < state_->size, "mark_lost of rank {} in a LocalGroup of {}", rank, state_->size);
  state_->mark_lost(rank);
}

Result<std::unique_ptr<Communicator>> make_local_communicator(const CommOptions& options) {
  if (options.launch.world_size != 1) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("communicator local serves one process, but {} started {}; use communicator mpi",
                                                          options.launch.launcher, options.launch.world_size)};
  }
  return LocalGroup(1).communicator(0);
}

}  // namespace lockstep::comm
