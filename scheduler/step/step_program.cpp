#include "scheduler/step/step_program.hpp"

namespace lockstep::scheduler {

std::string_view stage_name(Stage stage) {
  switch (stage) {
    case Stage::kEmbed:
      return "embed";
    case Stage::kAttention:
      return "attention";
    case Stage::kDense:
      return "dense";
    case Stage::kDispatch:
      return "dispatch";
    case Stage::kExperts:
      return "experts";
    case Stage::kCombine:
      return "combine";
    case Stage::kWeigh:
      return "weigh";
    case Stage::kHead:
      return "head";
  }
  return "unknown";
}

std::vector<ProgramEntry> build_step_program(std::span<const std::uint8_t> layer_is_sparse, std::int32_t micro_batches, RowTravel travel) {
  std::vector<ProgramEntry> program;
  const auto add = [&program](Stage stage, std::int32_t micro_batch, std::int32_t layer, StreamRole stream, StepEvent wait, StepEvent record) {
    program.push_back({.stage = stage, .micro_batch = micro_batch, .layer = layer, .stream = stream, .wait = wait, .record = record});
  };
  const auto compute = StreamRole::kCompute;
  const auto comm = StreamRole::kComm;
  bool combine_pending = false;  // the previous layer's expert outputs are still to be weighed in
  for (std::int32_t micro_batch = 0; micro_batch < micro_batches; ++micro_batch) {
    add(Stage::kEmbed, micro_batch, 0, compute, StepEvent::kNone, StepEvent::kNone);
  }
  const auto layer_count = static_cast<std::int32_t>(layer_is_sparse.size());
  for (std::int32_t layer = 0; layer < layer_count; ++layer) {
    const bool has_experts = layer_is_sparse[static_cast<std::size_t>(layer)] != 0;
    const bool exchanges = has_experts && travel == RowTravel::kExchange;
    for (std::int32_t micro_batch = 0; micro_batch < micro_batches; ++micro_batch) {
      if (combine_pending) {
        add(Stage::kWeigh, micro_batch, layer - 1, compute, StepEvent::kCombined, StepEvent::kNone);
      }
      add(Stage::kAttention, micro_batch, layer, compute, StepEvent::kNone, exchanges ? StepEvent::kRouted : StepEvent::kNone);
      if (exchanges) {
        add(Stage::kDispatch, micro_batch, layer, comm, StepEvent::kRouted, StepEvent::kDispatched);
      } else {
        add(has_experts ? Stage::kExperts : Stage::kDense, micro_batch, layer, compute, StepEvent::kNone, StepEvent::kNone);
      }
    }
    for (std::int32_t micro_batch = 0; exchanges && micro_batch < micro_batches; ++micro_batch) {
      add(Stage::kExperts, micro_batch, layer, compute, StepEvent::kDispatched, StepEvent::kComputed);
      add(Stage::kCombine, micro_batch, layer, comm, StepEvent::kComputed, StepEvent::kCombined);
    }
    combine_pending = exchanges;
  }
  for (std::int32_t micro_batch = 0; micro_batch < micro_batches; ++micro_batch) {
    if (combine_pending) {
      add(Stage::kWeigh, micro_batch, layer_count - 1, compute, StepEvent::kCombined, StepEvent::kNone);
    }
    add(Stage::kHead, micro_batch, layer_count, compute, StepEvent::kNone, StepEvent::kNone);
  }
  return program;
}

}  // namespace lockstep::scheduler
