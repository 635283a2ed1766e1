// StepExecutor: runs the step program of an agreed plan over this rank's rows.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/expert_exchange.hpp"
#include "lockstep/comm/step_agreement.hpp"
#include "lockstep/comm/step_plan.hpp"
#include "lockstep/comm/step_progress.hpp"
#include "lockstep/micro_batch.hpp"
#include "lockstep/model/transformer.hpp"
#include "lockstep/scheduler/step_observer.hpp"
#include "scheduler/batch/batch_planner.hpp"
#include "scheduler/step/step_cache.hpp"
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
  comm::StepAgreement* agreement = nullptr;  ///< tested between stages; may be null
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
  Duration agreement_time{};                ///< in tests of the next step's agreement, which are not in the stages' spans
};

/// Owns the streams, events, expert exchanges and the micro-batch contexts, which are entered on the engine's thread: a context follows what is enqueued under
/// it to its stream.      Threads  the engine's; with several micro-batches its two streams' threads run the stages.
class StepExecutor {
 public:
  [[nodiscard]] static Result<std::unique_ptr<StepExecutor>> create(const StepExecutorParts& parts, const StepExecutorOptions& options);

  /// Takes the step: collective. The logits of batch.sample_rows[i] are then row i of the transformer's logits.
  /// Errors  those of the expert exchange, with step, layer and collective in the message.      Cost  no allocation once warm.
  [[nodiscard]] Status run(const comm::StepPlan& plan, const StepBatch& batch, StepCosts& costs);
  /// Makes logits for rows of the last step's batch, of an entry that scores: of `first_row` and those after it, as many of `rows` as there is room for, to the
  /// transformer's logits from row 0 on. Returns how many, at least 1. Not collective.      Cost  one matrix product; no allocation.
  [[nodiscard]] Result<std::int32_t> make_logits(std::int32_t first_row, std::int32_t rows);
  /// [hidden size], of a row that an entry of the last step's batch pools; valid until the next `run`.
  [[nodiscard]] std::span<const BFloat16> hidden_row(std::int32_t row) const {
    return parts_.transformer->normalized_row(row / rows_per_micro_batch_, row % rows_per_micro_batch_);
  }

 private:
  /// One micro-batch: its slice of the batch, which its stages find in the ForwardContext, and what they need beside it.
  struct MicroBatch {
    model::BatchMetadata metadata;
    AttentionMetadataByLayer by_layer;
    std::vector<std::int32_t> sample_rows;  ///< indices into the micro-batch
    std::int32_t first_logit_row = 0;
    bool wants_hidden = false;  ///< the hidden states of some of its rows are needed after the step
    std::unique_ptr<comm::ExpertExchange> exchange;
    std::vector<std::unique_ptr<device::Event>> events;  ///< by StepEvent
  };
  /// Nothing is left in it: the stages' results are in the transformer's buffers.
  using MicroBatches = MicroBatchContext<std::monostate>;

  StepExecutor(const StepExecutorParts& parts, const StepExecutorOptions& options) : parts_(parts), options_(options) {}
  [[nodiscard]] Status allocate();
  [[nodiscard]] Status make_streams();
  void slice(const MicroBatches& split, const StepBatch& batch);
  [[nodiscard]] Status run_program(MicroBatches& split, const PreparedStep& prepared);
  void show(const ProgramEntry& entry);
  /// From here on the rank is shown as one that waits for the others: its own part is on its way.
  void open_collective(const ProgramEntry& entry);
  void close_collective(const ProgramEntry& entry);
  void announce(CollectiveKind kind, const ProgramEntry& entry);
  /// `execute`, with its span.
  [[nodiscard]] Status execute_timed(const ProgramEntry& entry, device::Stream& stream);
  [[nodiscard]] Status execute(const ProgramEntry& entry, device::Stream& stream);
  /// Moves on the agreement of the next step, if one is under way. Inline only: with streams, MPI is the comm stream's, whose exchanges move it too.
  void test_agreement();
  [[nodiscard]] Status dispatch(const ProgramEntry& entry, MicroBatch& micro_batch);
  [[nodiscard]] Status combine(const ProgramEntry& entry, MicroBatch& micro_batch);
  [[nodiscard]] Error in_collective(Error error, const ProgramEntry& entry) const;

  StepExecutorParts parts_;
  StepExecutorOptions options_;
  std::vector<MicroBatch> micro_batches_;
  std::unique_ptr<StepCache> cache_;
  std::optional<StepSpans> spans_;  ///< set by allocate
  TimePoint inline_end_{};          ///< of the last entry on the inline stream; the step thread's
  std::unique_ptr<StreamManager> inline_streams_;
  std::unique_ptr<StreamManager> streams_;    ///< null while one micro-batch is the most
  std::optional<MicroBatches> inline_split_;  ///< of steps with one micro-batch
  std::optional<MicroBatches> threaded_split_;
  DPMetadata step_metadata_;
  ForwardContext step_context_;
  std::int64_t step_ = 0;
  std::int32_t rows_per_micro_batch_ = 1;
  std::mutex progress_mutex_;                      ///< the two streams' threads report progress, which takes one writer at a time
  const ProgramEntry* open_collective_ = nullptr;  ///< the one that the comm stream waits in
  StepCosts costs_;
};

}  // namespace lockstep::scheduler
