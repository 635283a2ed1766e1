// TeacherForcing: the logits of every position of a given text, from the same stages and step program that serve requests.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/group.hpp"
#include "lockstep/comm/local_group.hpp"
#include "lockstep/comm/step_plan.hpp"
#include "lockstep/comm/step_progress.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/model/model_config.hpp"
#include "lockstep/model/transformer.hpp"
#include "lockstep/model/weights.hpp"
#include "scheduler/batch/batch_planner.hpp"
#include "scheduler/batch/kv_cache.hpp"
#include "scheduler/step/step_executor.hpp"

namespace lockstep::tests {

struct TeacherForcingOptions {
  std::int32_t tokens_max = 256;     ///< of one text
  std::int32_t rows_per_step = 256;  ///< smaller: the text is taken in chunks
  std::int32_t micro_batches = 1;
  std::string_view device{};  ///< empty: test_device_name()
  GraphMode graphs = GraphMode::kNone;
  bool within_device = false;   ///< rows come to their experts within the devices where engines let them: else by exchanges, on one rank too
  bool batch_invariant = true;  ///< see device::DeviceOptions
  comm::CombineMode combine = comm::CombineMode::kPerExpert;
  scheduler::StepObserver* observer = nullptr;  ///< outlives the teacher
  comm::LocalGroupHooks hooks{};
  comm::LocalGroup* group = nullptr;           ///< to be rank `rank` of these instead of alone: then `create` is collective
  comm::Communicator* communicator = nullptr;  ///< the same, and steps are collective: all ranks take the same text; borrowed
  int world_size = 1;
  int rank = 0;
  int idle_ranks = 0;  ///< the last ones, which have no rows and get no logits
};

/// One rank, without an engine: hand-made plans and batches, a logit row for every token.
/// Ownership  borrows the config; the source only during `create`.      Threads  one.
class TeacherForcing {
 public:
  [[nodiscard]] static Result<std::unique_ptr<TeacherForcing>> create(const model::ModelConfig& config, model::WeightSource& source,
                                                                      const TeacherForcingOptions& options);
  /// [tokens][vocabulary]: row i is what the model says after tokens 0 .. i.      Errors  the step's.
  [[nodiscard]] Result<std::vector<std::vector<float>>> logits(std::span<const std::int32_t> tokens);
  [[nodiscard]] std::string instruction_set() const;
  [[nodiscard]] device::DeviceUsage usage() const { return device_->usage(); }
  [[nodiscard]] const scheduler::StepCosts& last_costs() const { return costs_; }
  [[nodiscard]] scheduler::GraphSummary graph_summary() const { return executor_->graph_summary(); }
  [[nodiscard]] const comm::StepProgress& progress() const { return progress_; }

 private:
  TeacherForcing(const model::ModelConfig& config, const TeacherForcingOptions& options);
  [[nodiscard]] Status prepare(model::WeightSource& source);
  void make_batch(std::span<const std::int32_t> tokens, std::size_t begin, std::size_t end);

  const model::ModelConfig& config_;
  TeacherForcingOptions options_;
  std::unique_ptr<device::Device> device_;
  [[nodiscard]] comm::Communicator& communicator() const { return options_.communicator != nullptr ? *options_.communicator : *communicator_; }
  [[nodiscard]] bool is_idle(int rank) const { return rank >= options_.world_size - options_.idle_ranks; }

  std::unique_ptr<comm::Communicator> communicator_;  ///< null where one is borrowed
  comm::GroupView view_;
  comm::Placement placement_;
  comm::StepProgress progress_;
  std::unique_ptr<model::Transformer> transformer_;
  std::optional<scheduler::KvCache> cache_;
  std::unique_ptr<scheduler::StepExecutor> executor_;
  std::vector<std::int32_t> blocks_;
  scheduler::StepBatch batch_;
  comm::StepPlan plan_;
  scheduler::StepCosts costs_;  ///< of the last step
};

/// Natural logarithms of the softmax, in double.
[[nodiscard]] std::vector<double> log_softmax(std::span<const float> logits);

}  // namespace lockstep::tests
