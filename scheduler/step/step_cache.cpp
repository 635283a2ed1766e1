#include "scheduler/step/step_cache.hpp"

#include <algorithm>
#include <bit>

#include "lockstep/core/check.hpp"

namespace lockstep::scheduler {

BatchDescriptor step_shape(std::int32_t rows, bool decodes) {
  return {.num_tokens = static_cast<std::int32_t>(std::bit_ceil(static_cast<std::uint32_t>(std::max(rows, 1)))), .uniform = decodes};
}

StepCache::StepCache(std::span<const std::uint8_t> layer_is_sparse, std::int32_t rows_max, std::int32_t micro_batches_max, RowTravel travel) {
  for (std::int32_t count = 1; count <= micro_batches_max; ++count) {
    programs_.push_back(build_step_program(layer_is_sparse, count, travel));
  }
  const std::int32_t largest = step_shape(rows_max, false).num_tokens;
  for (const bool decodes : {false, true}) {
    for (std::int64_t rows = 1; rows <= largest; rows *= 2) {
      steps_[step_shape(static_cast<std::int32_t>(rows), decodes)].programs.assign(programs_.begin(), programs_.end());
    }
  }
}

const PreparedStep& StepCache::find(const BatchDescriptor& shape) const {
  const auto found = steps_.find(shape);
  LOCKSTEP_CHECK(found != steps_.end(), "no step is prepared for {}", shape.key());
  return found->second;
}

}  // namespace lockstep::scheduler
