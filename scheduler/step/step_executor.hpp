// StepExecutor: runs the step program of an agreed plan over this rank's rows.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/device_collectives.hpp"
#include "lockstep/comm/expert_exchange.hpp"
#include "lockstep/comm/step_agreement.hpp"
#include "lockstep/comm/step_plan.hpp"
#include "lockstep/comm/step_progress.hpp"
#include "lockstep/micro_batch.hpp"
#include "lockstep/model/transformer.hpp"
#include "lockstep/scheduler/step_observer.hpp"
#include "scheduler/batch/batch_planner.hpp"
#include "scheduler/step/device_watch.hpp"
#include "scheduler/step/graphs/step_graphs.hpp"
#include "scheduler/step/overlapped_program.hpp"
#include "scheduler/step/sampling/step_sampling.hpp"
#include "scheduler/step/step_cache.hpp"
#include "scheduler/step/step_program.hpp"
#include "scheduler/step/timing/device_spans.hpp"
#include "scheduler/step/timing/stage_clock.hpp"
#include "scheduler/step/timing/step_spans.hpp"

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
  std::int32_t gather_rows = 0;  ///< see comm::ExpertExchangeOptions
  comm::CombineMode combine = comm::CombineMode::kPerExpert;
  StepGraphOptions graphs{};  ///< rows_max: at most those of one step, and those whose logits it has room for
  Duration stall_timeout{};
};

/// What a step cost.
struct StepCosts {
  ExchangeTimes exchange_times{};
  bool exchanges_timed = true;  ///< false: they end when a device is told, which does not say how long rows then take
  std::uint64_t wire_bytes = 0;
  std::uint64_t crossed_rows = 0;
  std::int32_t nonempty_micro_batches = 0;  ///< of this rank
  GraphMode graph_mode = GraphMode::kNone;  ///< by which it ran
  Duration agreement_time{};                ///< in tests of the next step's agreement, which are not in the stages' spans
};

/// Owns the streams, expert exchanges and the micro-batch contexts, which are entered on the engine's thread: a context follows what is enqueued under it to
/// its stream.      Threads  the engine's, which makes all exchanges; with several micro-batches the compute stream's thread runs the other stages.
class StepExecutor final : private OverlappedStages {
 public:
  [[nodiscard]] static Result<std::unique_ptr<StepExecutor>> create(const StepExecutorParts& parts, const StepExecutorOptions& options);

  /// Captures graphs, where the device has them and they are wanted, and they hold no collectives. Before the first step.
  void capture_graphs();
  /// Captures graphs with collectives; makes each shape's mode the least that a member can do. Collective, on all members or, by the options, on none.
  /// Errors  the collectives'.
  [[nodiscard]] Status agree_graphs();
  [[nodiscard]] GraphSummary graph_summary() const;
  /// What this rank proposes for a step with this batch: all that is captured, unless rows of it need what graphs do not have. An idle rank is in nobody's way.
  [[nodiscard]] GraphMode propose_graph_mode(const StepBatch& batch) const;

  /// Takes the step: collective. For batch.sample_rows[i] there is then `sampled_token(i)`, or else the logits are row i of the transformer's.
  /// Errors  those of the expert exchange, with step, layer and collective in the message.      Cost  no allocation once warm.
  [[nodiscard]] Status run(const comm::StepPlan& plan, const StepBatch& batch, StepCosts& costs);
  /// What the device has chosen, device::kNoToken where there was nothing to choose from; nothing where the host samples.
  [[nodiscard]] std::optional<std::int32_t> sampled_token(std::int32_t logit_row) const { return sampling_.token(logit_row); }
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
    std::vector<std::int32_t> own_sample_rows;    ///< where `sample_rows` lie, outside of graphs
    std::span<const std::int32_t> sample_rows{};  ///< indices into the micro-batch
    std::int32_t first_logit_row = 0;
    bool wants_hidden = false;  ///< the hidden states of some of its rows are needed after the step
    std::unique_ptr<comm::ExpertExchange> exchange;
    TimePoint exchange_begin{};  ///< of the exchange under way
  };
  /// Nothing is left in it: the stages' results are in the transformer's buffers.
  using MicroBatches = MicroBatchContext<std::monostate>;

  StepExecutor(const StepExecutorParts& parts, const StepExecutorOptions& options);
  [[nodiscard]] Status allocate();
  [[nodiscard]] Status make_streams();
  void slice(const MicroBatches& split, const StepBatch& batch);
  /// `shape`: what of the program is launched as graphs; may be null.
  [[nodiscard]] Status run_inline(std::span<const ProgramEntry> program, StepGraphs::Shape* shape);
  /// The graphs for a step, once filled with its batch; null: it runs without.
  [[nodiscard]] StepGraphs::Shape* prepare_graphs(const comm::StepPlan& plan, const StepBatch& batch);
  [[nodiscard]] Status capture(StepGraphs::Shape& shape, std::span<const ProgramEntry> program);
  /// Notes why the shape could not be captured: the ranks agree on what is left, which is slower, and right.
  void note_failure(Status captured);
  /// Whether all ranks capture together, since there are collectives in their graphs; the same on all.
  [[nodiscard]] bool captures_collectives() const;
  [[nodiscard]] Status capture_collectives();
  /// The least value of all members.
  [[nodiscard]] Status reduce_to_least(std::span<std::int32_t> values);
  /// What a step with so many rows on each rank has sent to the others.
  void count_collectives(std::int32_t rows);
  [[nodiscard]] Status launch(StepGraphs::Shape& shape, device::Graph& graph, device::Stream& stream);
  void show(const ProgramEntry& entry);
  /// From here on the rank is shown as one that waits for the others: its own part is on its way.
  void open_collective(const ProgramEntry& entry);
  void close_collective(const ProgramEntry& entry);
  void announce(CollectiveKind kind, const ProgramEntry& entry);
  /// Moves on the agreement of the next step, if one is under way; the time after it. Inline only: the exchanges of a split step move it too.
  [[nodiscard]] TimePoint test_agreement(TimePoint begin);
  /// What the stage needs of an exchange that has ended, and what it gives to the next one: around its task.
  void take_rows(const ProgramEntry& entry, device::Stream& stream);
  void give_rows(const ProgramEntry& entry, device::Stream& stream);
  /// Of a wait for the device, which may hang, be it that a peer's rows do not come; on a host stages end by themselves.
  [[nodiscard]] Deadline device_deadline();
  [[nodiscard]] Status in_step(Status waited) const;
  /// Enqueues what comes behind the step's last stage.
  void enqueue_sampling(device::Stream& stream);
  /// Any stage but the exchanges.
  [[nodiscard]] Status compute(const ProgramEntry& entry, device::Stream& stream);
  /// Inside the micro-batch's context.
  [[nodiscard]] Status start_exchange(const ProgramEntry& entry);
  [[nodiscard]] Error in_collective(Error error, const ProgramEntry& entry) const;
  [[nodiscard]] comm::ExpertExchange& exchange_of(const ProgramEntry& entry) { return *micro_batches_[static_cast<std::size_t>(entry.micro_batch)].exchange; }

  // What the overlapped program asks for; inline the exchanges take the same way.
  void enqueue(const ProgramEntry& entry, device::Stream& compute) override;
  [[nodiscard]] Status start(const ProgramEntry& entry) override;
  [[nodiscard]] bool arrived(const ProgramEntry& entry) override { return exchange_of(entry).arrived(); }
  [[nodiscard]] Status finish(const ProgramEntry& entry, const Deadline& deadline) override;
  /// Of what an exchange sends the host reads experts' ids: with rows that stay on the device a combine needs nothing of it.
  [[nodiscard]] bool needs_result(const ProgramEntry& entry) const override { return !rows_stay_on_device_ || entry.stage == Stage::kDispatch; }
  [[nodiscard]] Status wait_for(device::Event& event) override { return in_step(event.wait(device_deadline())); }
  [[nodiscard]] Status wait_for(device::Stream& stream) override {
    Status done = in_step(stream.synchronize(device_deadline()));
    device_spans_->seen_done();
    return done;
  }
  [[nodiscard]] Deadline deadline() const override { return Deadline::after(options_.stall_timeout, parts_.watch); }

  StepExecutorParts parts_;
  StepExecutorOptions options_;
  const bool alone_;  ///< rows come to their experts within the device in every step
  const bool rows_stay_on_device_;
  const DeviceWatch device_watch_;
  std::unique_ptr<device::Ops> exchange_ops_;  ///< null where rows pass through the host's memory
  bool exchanges_run_ = false;                 ///< the device may wait for peers' rows of this step
  std::vector<MicroBatch> micro_batches_;
  std::unique_ptr<StepCache> cache_;
  StageClock stage_clock_;                            ///< the compute stream's, in split steps
  std::optional<StepSpans> spans_;                    ///< set by allocate
  std::optional<DeviceSpans> device_spans_;           ///< the same
  std::unique_ptr<StepGraphs> graphs_;                ///< null where there are none
  std::vector<ProgramEntry> program_within_devices_;  ///< of steps whose graphs hold collectives
  comm::DeviceCollectives* collectives_ = nullptr;    ///< in graphs; null where they hold none
  std::string graph_failure_;
  StepSampling sampling_;
  const ProgramEntry* last_entry_ = nullptr;  ///< of the step's program
  std::unique_ptr<StreamManager> inline_streams_;
  std::optional<MicroBatches> split_;              ///< over the inline streams; set by allocate
  std::unique_ptr<OverlappedProgram> overlapped_;  ///< null while one micro-batch is the most
  DPMetadata step_metadata_;
  ForwardContext step_context_;
  std::int64_t step_ = 0;
  std::int32_t rows_per_micro_batch_ = 1;
  std::mutex progress_mutex_;                          ///< two threads report progress, which takes one writer at a time
  std::vector<const ProgramEntry*> open_collectives_;  ///< those under way, the oldest first
  StepCosts costs_;
};

}  // namespace lockstep::scheduler
