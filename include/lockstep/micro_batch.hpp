// Micro-batches: a batch cut into slices that run one after another on streams for compute and communication. Seed module 000.
//
//   lockstep::MicroBatchContext<Tensor> context({.batch_size = 32, .micro_batch_size = 8});
//   for (const lockstep::MicroBatchInfo& micro_batch : context.iterate()) {
//     context.record_output(model(rows.subspan(micro_batch.start, micro_batch.size)));
//   }
//   std::vector<Tensor> outputs = context.gather_outputs();
#pragma once

#include <any>
#include <cstdint>
#include <memory>
#include <stdexcept>

#include "lockstep/micro_batch/micro_batch_context.hpp"
#include "lockstep/micro_batch/micro_batch_info.hpp"
#include "lockstep/micro_batch/micro_batch_sequence.hpp"
#include "lockstep/micro_batch/micro_batch_sizer.hpp"
#include "lockstep/micro_batch/stream_manager.hpp"

namespace lockstep {

/// A plain or an adaptive context; `options` gives the rest of its settings (for an adaptive one: limits, threads, streams, clock).
/// Errors  throws what the constructors throw.
template <typename Output = std::any>
[[nodiscard]] std::unique_ptr<MicroBatchContext<Output>> create_micro_batch_context(std::int32_t batch_size, std::int32_t micro_batch_size = 8,
                                                                                    bool adaptive = true, MicroBatchOptions options = {}) {
  if (adaptive) {
    if (options.num_micro_batches_min != 0) {
      throw std::invalid_argument("num_micro_batches_min is an agreed number, and an adaptive context chooses its own: pass adaptive = false");
    }
    return std::make_unique<AdaptiveMicroBatchContext<Output>>(AdaptiveMicroBatchOptions{.batch_size = batch_size,
                                                                                         .initial_micro_batch = micro_batch_size,
                                                                                         .min_micro_batch = options.min_micro_batch,
                                                                                         .max_micro_batch = options.max_micro_batch,
                                                                                         .num_threads = options.num_threads,
                                                                                         .stream_manager = options.stream_manager,
                                                                                         .stream_policy = options.stream_policy,
                                                                                         .narrow_forward_context = options.narrow_forward_context,
                                                                                         .narrow_attention = options.narrow_attention,
                                                                                         .clock = options.clock});
  }
  options.batch_size = batch_size;
  options.micro_batch_size = micro_batch_size;
  options.adaptive = false;
  return std::make_unique<MicroBatchContext<Output>>(options);
}

/// For one scope: `auto context = micro_batch_scope(100, 10);`
template <typename Output = std::any>
[[nodiscard]] MicroBatchContext<Output> micro_batch_scope(std::int32_t batch_size, std::int32_t micro_batch_size = 8) {
  return MicroBatchContext<Output>({.batch_size = batch_size, .micro_batch_size = micro_batch_size, .adaptive = false});
}

}  // namespace lockstep
