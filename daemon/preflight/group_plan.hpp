// GroupPlan: which rank holds what, and the memory that it takes; computed alike by every rank.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/preflight/prepared.hpp"

namespace lockstep::daemon {

struct RankPlan {
  std::vector<std::int32_t> experts;  ///< of every layer with experts, ascending
  std::int64_t weight_bytes = 0;      ///< packed, as the device keeps them
};

struct GroupPlan {
  std::vector<RankPlan> ranks;
  std::int64_t kv_cache_bytes = 0;  ///< on each rank
  std::int64_t kv_blocks = 0;       ///< on each rank
  std::int64_t kv_tokens = 0;       ///< that these blocks hold
  /// Weights and KV cache of the ranks of this host together. Activations are not counted: they are small beside these.
  std::int64_t host_bytes = 0;
  std::int64_t device_bytes = 0;  ///< the most that one of these ranks takes: each has a device, where devices have memory of their own
};

/// For the world size and the ranks of this host of `prepared.launch`.      Cost  goes over the model's tensors by name, reads none.
[[nodiscard]] GroupPlan make_group_plan(const Prepared& prepared);

/// Errors  kInvalidArgument: this host's ranks need more than its memory, or one more than its device's; what may help.
[[nodiscard]] Status check_memory(const GroupPlan& plan, const Prepared& prepared);

/// For people: the model, the group, one line a rank.
[[nodiscard]] std::string plan_text(const GroupPlan& plan, const Prepared& prepared);

/// "0-3, 5"; "none".
[[nodiscard]] std::string ranges_text(const std::vector<std::int32_t>& ascending);

}  // namespace lockstep::daemon
