// A group of members as threads of this process.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "lockstep/comm/local_group.hpp"

namespace lockstep::comm::testing {

/// Long enough that only a hang reaches it.
inline Deadline hang_limit() {
  return Deadline::after(std::chrono::seconds(60));
}

/// Runs `member` once per rank, each on its own thread, over one LocalGroup; returns when all have ended.
inline void run_members(LocalGroup& group, int size, const std::function<void(int rank, Communicator& communicator)>& member) {
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&member, rank, communicator = std::shared_ptr<Communicator>(group.communicator(rank))] { member(rank, *communicator); });
  }
}

inline void run_members(int size, const std::function<void(int rank, Communicator& communicator)>& member) {
  LocalGroup group(size);
  run_members(group, size, member);
}

}  // namespace lockstep::comm::testing
