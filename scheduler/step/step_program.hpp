// StepProgram: a step as a flat list of stages, each on a stream, ordered by events only.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace lockstep::scheduler {

/// What an entry does. kAttention includes routing in sparse layers; kDispatch and kCombine are the collectives.
enum class Stage : std::uint8_t { kEmbed, kAttention, kDense, kDispatch, kExperts, kCombine, kWeigh, kHead };
[[nodiscard]] std::string_view stage_name(Stage stage);

enum class StreamRole : std::uint8_t { kCompute, kComm };

/// Points that a micro-batch passes in every sparse layer; one event each, recorded anew by each layer.
enum class StepEvent : std::uint8_t { kRouted, kDispatched, kComputed, kCombined, kCount, kNone = kCount };

/// How rows come to their experts and back: by the collectives; or within the device, in kExperts alone.
enum class RowTravel : std::uint8_t { kExchange, kWithinDevice };

struct ProgramEntry {
  Stage stage = Stage::kEmbed;
  std::int32_t micro_batch = 0;
  std::int32_t layer = 0;
  StreamRole stream = StreamRole::kCompute;
  StepEvent wait = StepEvent::kNone;    ///< of the same micro-batch, before the stage
  StepEvent record = StepEvent::kNone;  ///< of the same micro-batch, after it
};

/// The entries in the order in which they are enqueued. Depends on the layers and the agreed number of micro-batches alone: so every rank has the same
/// collectives in the same order. With two micro-batches the compute stream runs A.attention, B.attention, A.experts, B.experts while the comm stream runs
/// A.dispatch, B.dispatch, A.combine, B.combine, each as soon as its event allows. A prompt chunk that spans A and B is right because the compute stream runs
/// B's attention of a layer after A's.
[[nodiscard]] std::vector<ProgramEntry> build_step_program(std::span<const std::uint8_t> layer_is_sparse, std::int32_t micro_batches,
                                                           RowTravel travel = RowTravel::kExchange);

}  // namespace lockstep::scheduler
