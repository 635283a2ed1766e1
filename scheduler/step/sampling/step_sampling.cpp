#include "scheduler/step/sampling/step_sampling.hpp"

namespace lockstep::scheduler {

StepSampling::StepSampling(model::Transformer& transformer)
    : transformer_(transformer),
      list_(transformer.samples_on_device() ? transformer.logit_rows_max() : 0, transformer.samples_on_device() ? model::kLogitChangesMax : 0) {
  choice_of_row_.reserve(static_cast<std::size_t>(transformer.logit_rows_max()));
}

void StepSampling::plan(const StepBatch& batch) {
  if (!is_needed()) {
    return;
  }
  list_.clear();
  choice_of_row_.assign(batch.sample_rows.size(), kOnHost);
  std::int32_t logit_row = 0;
  for (const StepBatch::Entry& entry : batch.entries) {
    if (!entry.samples || entry.scores) {
      continue;
    }
    const auto next = static_cast<std::int32_t>(list_.choices().size());
    // What is computed of one that has ended nobody wants.
    if (!entry.sequence->ended && entry.sequence->request.sampling.log_probabilities < 0 && list_.add(sampler_input(*entry.sequence), logit_row)) {
      choice_of_row_[static_cast<std::size_t>(logit_row)] = next;
    }
    ++logit_row;
  }
}

void StepSampling::enqueue(device::Stream& stream) const {
  transformer_.sample(list_, stream);
  const auto rows = static_cast<std::int32_t>(choice_of_row_.size());
  for (std::int32_t row = 0; row < rows; ++row) {
    const std::int32_t first = row;
    while (row < rows && choice_of_row_[static_cast<std::size_t>(row)] == kOnHost) {
      ++row;
    }
    transformer_.bring_logits(first, row - first, stream);
  }
}

std::optional<std::int32_t> StepSampling::token(std::int32_t logit_row) const {
  if (!is_needed() || choice_of_row_[static_cast<std::size_t>(logit_row)] == kOnHost) {
    return std::nullopt;
  }
  return transformer_.sampled_tokens()[static_cast<std::size_t>(choice_of_row_[static_cast<std::size_t>(logit_row)])];
}

}  // namespace lockstep::scheduler
