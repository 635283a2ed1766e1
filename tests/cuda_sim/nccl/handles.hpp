// Handles of simulated communicators, and what the parts of the API share about them.
#pragma once

#include <memory>

#include "tests/cuda_sim/nccl/communicator.hpp"

namespace nccl_sim {

/// A communicator that ncclCommShrink is making: it shows when its parent is no longer in progress.
struct Shrunk {
  ncclComm_t* to = nullptr;
  std::shared_ptr<Communicator> communicator;
};

}  // namespace nccl_sim

struct ncclComm {
  std::shared_ptr<nccl_sim::Communicator> communicator;
  const char* ended = nullptr;  ///< the call that did it
  std::unique_ptr<nccl_sim::Shrunk> shrunk;
};

namespace nccl_sim {

[[nodiscard]] ncclComm_t add_handle(std::shared_ptr<Communicator> communicator);
/// Violation where it is none, or not any more.
[[nodiscard]] Communicator* find(ncclComm_t handle, const char* call);
/// Whether operations may be called on it: nothing is in progress, nothing has failed.
[[nodiscard]] ncclResult_t check_usable(Communicator& communicator);
/// Hands the shrunk communicator out.
inline void publish_shrunk(ncclComm& parent) {
  if (parent.shrunk->communicator) {
    *parent.shrunk->to = add_handle(std::move(parent.shrunk->communicator));
  }
  parent.shrunk.reset();
}

}  // namespace nccl_sim
