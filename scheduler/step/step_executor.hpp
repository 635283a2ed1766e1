// StepExecutor: runs the step program of an agreed plan over this rank's rows.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/expert_exchange.hpp"
#include "lockstep/comm/step_plan.hpp"
#include "lockstep/comm/step_progress.hpp"
#include "lockstep/model/transformer.hpp"
#include "lockstep/scheduler/step_observer.hpp"
#include "scheduler/batch/batch_planner.hpp"
#include "scheduler/step/step_program.hpp"
#include "scheduler/step/step_spans.hpp"

namespace lockstep::scheduler {

/// What is borrowed by the executor; all of it outlives it.
struct StepExecutorParts {
  const model::ModelConfig* config = nullptr;
  device::Device* device = nullptr;
  comm::Communicator* communicator = nullptr;
  const comm::GroupView* view = nullptr;
  const comm::Placement* placement = nullptr;
  model::Transformer* transformer = nullptr;
  const KvCache* cache = nullptr;
  comm::StepProgress* progress = nullptr;
  const Watch* watch = nullptr;
  ForwardTimingTracker* timing_tracker = nullptr;
  StepObserver* observer = nullptr;
};

struct StepExecutorOptions {
  std::int32_t rows_max = 0;  ///< rows of one step
  std::int32_t micro_batches_max = 1;
  Duration stall_timeout{};
};

/// What a step cost.
struct StepCosts {
  ExchangeTimes exchange_times{};
  std::uint64_t wire_bytes = 0;
  std::uint64_t crossed_rows = 0;
  std::int32_t nonempty_micro_batches = 0;  ///< of this rank
};

/// Owns the streams, events, expert exchanges and each micro-batch's context.      Threads  the engine's; with several micro-batches its two streams' threads
/// run the stages.
class StepExecutor {
 public:
  [[nodiscard]] static Result<std::unique_ptr<StepExecutor>> create(const StepExecutorParts& parts, const StepExecutorOptions& options);

  /// Takes the step: collective. The logits of batch.sample_rows[i] are then row i of the transformer's logits.
  /// Errors  those of the expert exchange, with step, layer and collective in the message.      Cost  no allocation once warm.
  [[nodiscard]] Status run(const comm::StepPlan& plan, const StepBatch& batch, StepCosts& costs);

 private:
  /// One micro-batch: its slice of the batch, and what its stages find in the ForwardContext.
  struct MicroBatch {
    model::BatchMetadata metadata;
    AttentionMetadataByLayer by_layer;
    DPMetadata dp_metadata;
    ForwardContext context;
    std::vector<std::int32_t> sample_rows;  ///< indices into the micro-batch
    std::int32_t first_logit_row = 0;
    std::unique_ptr<comm::ExpertExchange> exchange;
    std::vector<std::unique_ptr<device::Event>> events;  ///< by StepEvent
  };

  StepExecutor(const StepExecutorParts& parts, const StepExecutorOptions& options) : parts_(parts), options_(options) {}
  [[nodiscard]] Status allocate();
  void narrow(const comm::StepPlan& plan, const StepBatch& batch);
  void show(const ProgramEntry& entry);
  /// From here on the rank is shown as one that waits for the others: its own part is on its way.
  void open_collective(const ProgramEntry& entry);
  void close_collective(const ProgramEntry& entry);
  void announce(CollectiveKind kind, const ProgramEntry& entry);
  /// `execute`, with its span.
  [[nodiscard]] Status execute_timed(const ProgramEntry& entry, device::Stream& stream);
  [[nodiscard]] Status execute(const ProgramEntry& entry, device::Stream& stream);
  [[nodiscard]] Status dispatch(const ProgramEntry& entry, MicroBatch& micro_batch);
  [[nodiscard]] Status combine(const ProgramEntry& entry, MicroBatch& micro_batch);
  [[nodiscard]] Error in_collective(Error error, const ProgramEntry& entry) const;

  StepExecutorParts parts_;
  StepExecutorOptions options_;
  std::vector<MicroBatch> micro_batches_;
  std::vector<std::vector<ProgramEntry>> programs_;  ///< by number of micro-batches - 1
  std::unique_ptr<device::Stream> inline_stream_;
  std::unique_ptr<device::Stream> compute_stream_;  ///< null while one micro-batch is the most
  std::unique_ptr<device::Stream> comm_stream_;
  std::optional<StepSpans> spans_;  ///< set by allocate
  TimePoint inline_end_{};          ///< of the last entry on the inline stream; the step thread's
  DPMetadata step_metadata_;
  std::int64_t step_ = 0;
  std::mutex progress_mutex_;                      ///< the two streams' threads report progress, which takes one writer at a time
  const ProgramEntry* open_collective_ = nullptr;  ///< the one that the comm stream waits in
  StepCosts costs_;
};

}  // namespace lockstep::scheduler
