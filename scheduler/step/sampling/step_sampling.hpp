// StepSampling: which tokens of a step the device chooses where the logits are, and which the host.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "lockstep/model/token_choice_list.hpp"
#include "lockstep/model/transformer.hpp"
#include "scheduler/batch/batch_planner.hpp"

namespace lockstep::scheduler {

/// On a device with memory of its own, tokens of requests without log probabilities are chosen there, and 4 bytes for each come to the host. Of other rows the
/// logits come. It is no collective: each rank decides for its own rows.
/// Ownership  borrows the transformer.      Threads  the engine's, `enqueue` a stream's task.      Cost  a step: one copy to the device, one launch, one copy
/// back; no allocation.
class StepSampling {
 public:
  explicit StepSampling(model::Transformer& transformer);

  /// Whether there is anything to enqueue; else all logits are in the host's memory.
  [[nodiscard]] bool is_needed() const { return transformer_.samples_on_device(); }
  /// Decides for batch.sample_rows, in order: row i of the logits each. Rows that belong to no entry are the host's.
  void plan(const StepBatch& batch);
  /// From inside a task of the stream, behind the step's last stage.
  void enqueue(device::Stream& stream) const;
  /// What the device has chosen, device::kNoToken among it, once the stream has come there; nothing where the host samples.
  [[nodiscard]] std::optional<std::int32_t> token(std::int32_t logit_row) const;

 private:
  static constexpr std::int32_t kOnHost = -1;

  model::Transformer& transformer_;
  model::TokenChoiceList list_;
  std::vector<std::int32_t> choice_of_row_;  ///< [logit rows of the step], index into list_, or kOnHost
};

}  // namespace lockstep::scheduler
