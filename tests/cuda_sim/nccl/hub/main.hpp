// Between the hub's program and who starts it.
#pragma once

namespace nccl_sim {

/// The descriptors that the program finds open, above those that every process has and that a launcher may leave behind.
inline constexpr int kHubListener = 100;
inline constexpr int kHubCreator = 101;

}  // namespace nccl_sim
