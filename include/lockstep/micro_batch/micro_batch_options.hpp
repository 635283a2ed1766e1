// MicroBatchOptions and MicroBatchSplit: how a batch is to be cut, ordered and run.
#pragma once

#include <cstdint>
#include <functional>

#include "lockstep/core/deadline.hpp"
#include "lockstep/forward_context.hpp"
#include "lockstep/micro_batch/micro_batch_info.hpp"
#include "lockstep/micro_batch/stream_manager.hpp"

namespace lockstep {

/// Higher goes first, equal ones by index. Called once per micro-batch, before the first; must not call the context.
using PriorityFn = std::function<double(const MicroBatchInfo& micro_batch)>;

/// The attention metadata of one micro-batch, borrowed until the batch's end. Called once per micro-batch, when it is first entered under a ForwardContext;
/// must not call the context.
using NarrowAttentionFn = std::function<const AttentionMetadataByLayer*(const MicroBatchInfo& micro_batch)>;

struct MicroBatchOptions {
  std::int32_t batch_size = 0;  ///< rows; 0 (a rank with no tokens) iterates zero times
  std::int32_t micro_batch_size = 8;
  int num_threads = 1;                      ///< how many threads walk the batch together, and meet at the barrier; at most 4096
  StreamManager* stream_manager = nullptr;  ///< borrowed; null: inline streams of its own
  bool adaptive = true;                     ///< holds micro_batch_size within the two limits that follow; false takes it as it is
  std::int32_t min_micro_batch = 1;
  std::int32_t max_micro_batch = 64;
  StreamPolicy stream_policy = StreamPolicy::round_robin;
  std::int32_t num_micro_batches_min = 0;  ///< an agreed number: where this rank's rows give fewer, the last ones are empty
  bool narrow_forward_context = true;      ///< false where the batch's rows are not the forward pass's tokens: the context stays as it is
  NarrowAttentionFn narrow_attention{};    ///< null: a micro-batch keeps the batch's attention metadata
  const Clock* clock = nullptr;            ///< borrowed; null: the steady clock
};

/// A split that was agreed on, and is the same on each rank whatever its own number of rows.      Threads  a value.
struct MicroBatchSplit {
  std::int32_t batch_size = 0;         ///< rows of this rank
  std::int32_t micro_batch_size = 1;   ///< rows of each micro-batch but a rank's last one
  std::int32_t num_micro_batches = 1;  ///< where this rank's rows give fewer, the last ones are empty
};

}  // namespace lockstep
