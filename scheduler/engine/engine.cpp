#include "lockstep/scheduler/engine.hpp"

#include <algorithm>
#include <numeric>
#include <optional>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"
#include "lockstep/core/hash.hpp"
#include "lockstep/model/transformer.hpp"
#include "scheduler/batch/batch_planner.hpp"
#include "scheduler/batch/prompt_pace.hpp"
#include "scheduler/engine/engine_inbox.hpp"
#include "scheduler/engine/request_checks.hpp"
#include "scheduler/engine/step_output.hpp"
#include "scheduler/engine/step_proposer.hpp"
#include "scheduler/step/micro_batch_choice.hpp"
#include "scheduler/step/step_executor.hpp"

namespace lockstep::scheduler {

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
    case FinishReason::kRankLost:
      return "rank_lost";
  }
  return "unknown";
}

namespace {

/// How often a sleeping engine asks the failure detector: well under the 0.5 s in which a dead peer must be known, and far under 1 % of a core.
constexpr Duration kSleepCheckInterval = std::chrono::milliseconds(100);

/// Asked by the loader between tensors: shows the peers that this rank makes progress, and ends the load when one of them is gone.
class LoadWatch final : public Watch {
 public:
  LoadWatch(comm::StepProgress& progress, const Watch* group) : progress_(progress), group_(group) {}
  Status failure() const override {
    progress_.advance(0, -1, comm::StepPhase::kStarting);
    return group_ == nullptr ? Status{} : group_->failure();
  }
  TimePoint last_progress() const override { return group_ == nullptr ? TimePoint{} : group_->last_progress(); }

 private:
  comm::StepProgress& progress_;
  const Watch* group_;
};

bool means_rank_lost(ErrorCode code) {
  return code == ErrorCode::kTimeout || code == ErrorCode::kPeerLost || code == ErrorCode::kDiverged;
}

/// Why the plan has as many micro-batches as it has, where this rank wished for so many.
MicroBatchReason reason_for(const MicroBatchWish& wish, const comm::StepPlan& plan) {
  if (plan.micro_batches == wish.count) {
    return wish.reason;
  }
  return plan.micro_batches < wish.count && plan.micro_batches == std::ranges::max(plan.tokens_per_member) ? MicroBatchReason::kFewRows
                                                                                                           : MicroBatchReason::kPeer;
}

class StepEngine final : public Engine {
 public:
  StepEngine(const EngineOptions& options, EngineParts parts, std::string config_identity)
      : options_(options),
        parts_(std::move(parts)),
        config_identity_(std::move(config_identity)),
        config_hash_(fnv1a(config_identity_)),
        max_model_len_(options.max_model_len > 0 ? options.max_model_len : parts_.config->context_length),
        placement_(comm::Placement::contiguous(parts_.config->expert_count, parts_.view)),
        inbox_(options.max_pending),
        proposer_(options_, parts_, config_hash_) {
    inbox_.set_epoch(parts_.view.epoch);
    if (options_.micro_batches_auto) {
      choice_.emplace(options_.max_num_batched_tokens);
    }
  }

  Status load_weights() override;
  Status warm_up() override;
  Status run() override;
  Status submit_all(std::span<GenerationRequest> requests) override;
  void cancel(RequestId id) override { inbox_.end(id, FinishReason::kCancelled); }
  void complete(RequestId id) override { inbox_.end(id, FinishReason::kStop); }
  void request_drain() override {
    draining_.store(true, std::memory_order_release);
    inbox_.wish(comm::ControlWish::kDrain);
  }
  void request_stop() override {
    draining_.store(true, std::memory_order_release);
    inbox_.wish(comm::ControlWish::kStop);
  }
  void on_wake(std::int32_t from, std::int32_t epoch, std::int64_t step) override { inbox_.on_wake(from, epoch, step); }
  bool draining() const override { return draining_.load(std::memory_order_acquire); }
  bool running() const override { return running_.load(std::memory_order_acquire); }
  std::int32_t open_requests() const override { return inbox_.open_requests(); }
  std::int32_t max_model_len() const override { return max_model_len_; }
  std::int32_t max_request_tokens() const override {
    return static_cast<std::int32_t>(std::min<std::int64_t>(max_model_len_, kv_cache_tokens_.load(std::memory_order_acquire)));
  }
  std::uint64_t config_hash() const override { return config_hash_; }
  const std::string& graph_report() const override { return graph_report_; }
  const std::string& config_identity() const override { return config_identity_; }

 private:
  [[nodiscard]] Status run_steps();
  [[nodiscard]] Status agree_graphs();
  [[nodiscard]] std::int32_t graph_rows_max(std::int32_t logit_rows) const { return std::min(options_.graph_tokens_max, logit_rows); }
  /// See TransformerOptions; the same on all members.
  [[nodiscard]] std::int32_t rows_within_device_max(std::int32_t logit_rows) const;
  /// Takes messages and plans; sleeps while the group sleeps and there is nothing to do. True when a peer's wake ended the sleep.
  [[nodiscard]] Result<bool> plan_or_sleep(bool asleep);
  void take_messages();
  /// Running requests and prompts that other members had rows of in the last step that was agreed on; a hint, since they may have ended.
  [[nodiscard]] PromptsBesideStreams rows_elsewhere() const;
  void plan_next();
  /// Proposes `next_batch_` for `step`.
  [[nodiscard]] Status propose(std::int64_t step);
  /// Proposes `step_` when there is something to do, or the others want to.
  [[nodiscard]] Status propose_when_awake(bool asleep);
  /// Proposes the step after `step_`, before that is computed: its exchange runs under the computing. Every member does so in the same step, as the plan alone
  /// decides. What `step_` gives is sampled and delivered before the next plan is looked at, so nobody sleeps or leaves with it undelivered.
  [[nodiscard]] Status propose_ahead();
  /// Waits for the plan of the step that was proposed, and makes its batch the current one.
  [[nodiscard]] Status agree(StepRecord& record);
  [[nodiscard]] Status compute(StepRecord& record);
  /// The shape of this rank's rows, which is all that it knows before the agreement.
  [[nodiscard]] static BatchDescriptor own_shape(const StepBatch& batch) { return step_shape(batch.rows(), batch.prefill_tokens == 0); }
  /// Ends every open request, also those that nobody has looked at yet.
  void end_all(FinishReason reason, const Error* error);
  void observe(const StepRecord& record);
  void observe_span(SpanKind kind, TimePoint begin, TimePoint end);

  const EngineOptions options_;
  EngineParts parts_;
  const std::string config_identity_;
  const std::uint64_t config_hash_;
  const std::int32_t max_model_len_;
  const comm::Placement placement_;
  EngineInbox inbox_;
  StepProposer proposer_;
  ForwardTimingTracker own_timings_;
  ForwardTimingTracker& timings_ = parts_.timing_tracker != nullptr ? *parts_.timing_tracker : own_timings_;
  PromptPace prompt_pace_;
  std::optional<MicroBatchChoice> choice_;  ///< with --micro-batches auto
  std::unique_ptr<model::Transformer> transformer_;
  std::optional<KvCache> cache_;
  std::unique_ptr<BatchPlanner> planner_;
  std::unique_ptr<StepExecutor> executor_;
  std::optional<StepOutput> output_;  ///< set by load

  // The step thread's own.
  std::int64_t step_ = 0;
  EngineInbox::Messages messages_;
  StepBatch batch_;           ///< of step_
  StepBatch next_batch_;      ///< of the step that is planned or proposed
  MicroBatchWish next_wish_;  ///< of next_batch_
  comm::StepPlan plan_;       ///< of step_
  TimePoint last_agreement_{};
  TimePoint plan_from_{};  ///< of next_batch_
  TimePoint planned_{};
  std::optional<TimePoint> agree_from_;  ///< of the proposal under way; none when it was made ahead

  std::string graph_report_;  ///< written before running_
  std::atomic<bool> running_{false};
  std::atomic<bool> draining_{false};
  std::atomic<std::int64_t> kv_cache_tokens_{0};  ///< known after load
};

std::int32_t StepEngine::rows_within_device_max(std::int32_t logit_rows) const {
  if (!comm::exchanges_on_device(*parts_.communicator, parts_.device, options_.combine)) {
    return 0;  // also where a rank's experts are summed: that is rounded once more, on one rank too
  }
  if (parts_.view.size() == 1) {
    return options_.max_num_batched_tokens;
  }
  return options_.graphs == GraphMode::kFull ? graph_rows_max(logit_rows) : 0;
}

Status StepEngine::load_weights() {
  const LoadWatch watch(*parts_.progress, parts_.watch);
  const model::ModelConfig& config = *parts_.config;
  const std::span<const std::int32_t> experts = placement_.experts_of(parts_.view.my_index);
  const std::int32_t logit_rows = std::min(options_.max_num_seqs, options_.max_num_batched_tokens);
  LOCKSTEP_ASSIGN_OR_RETURN(transformer_,
                            model::Transformer::load(config, *parts_.weights, *parts_.device,
                                                     {.rows_max = options_.max_num_batched_tokens,
                                                      .group_rows_max = options_.max_num_batched_tokens * parts_.view.size(),
                                                      .micro_batches_max = options_.micro_batches,
                                                      .logit_rows_max = logit_rows,
                                                      .positions_max = max_model_len_,
                                                      .local_experts = {experts.begin(), experts.end()},
                                                      .rows_stay_on_device = comm::exchanges_on_device(*parts_.communicator, parts_.device, options_.combine),
                                                      .rows_within_device_max = rows_within_device_max(logit_rows),
                                                      .view = &parts_.view,
                                                      .placement = &placement_},
                                                     &watch));
  const std::int32_t blocks_per_table = KvCache::blocks_for(max_model_len_);
  const std::int64_t useful_blocks = std::int64_t{options_.max_num_seqs} * blocks_per_table;
  LOCKSTEP_ASSIGN_OR_RETURN(cache_, KvCache::create(*parts_.device, transformer_->kv_cache_specs(), options_.kv_cache_bytes, useful_blocks));
  planner_ = std::make_unique<BatchPlanner>(
      BatchLimits{.sequences_max = logit_rows, .tokens_max = options_.max_num_batched_tokens, .blocks_per_table = blocks_per_table}, *cache_);
  LOCKSTEP_ASSIGN_OR_RETURN(
      executor_, StepExecutor::create({.config = parts_.config,
                                       .device = parts_.device,
                                       .communicator = parts_.communicator,
                                       .view = &parts_.view,
                                       .placement = &placement_,
                                       .agreement = &proposer_.agreement(),
                                       .transformer = transformer_.get(),
                                       .cache = &*cache_,
                                       .progress = parts_.progress,
                                       .watch = parts_.watch,
                                       .timing_tracker = &timings_,
                                       .observer = parts_.observer},
                                      {.rows_max = options_.max_num_batched_tokens,
                                       .micro_batches_max = options_.micro_batches,
                                       .gather_rows = options_.gather_rows,
                                       .combine = options_.combine,
                                       .graphs = {.most = options_.graphs, .rows_max = graph_rows_max(logit_rows), .blocks_per_table = blocks_per_table},
                                       .stall_timeout = options_.stall_timeout}));
  output_.emplace(StepOutputParts{.planner = planner_.get(),
                                  .inbox = &inbox_,
                                  .sink = parts_.sink,
                                  .observer = parts_.observer,
                                  .clock = parts_.clock,
                                  .transformer = transformer_.get(),
                                  .executor = executor_.get()},
                  options_.max_num_batched_tokens);
  return {};
}

Status StepEngine::warm_up() {
  LOCKSTEP_CHECK(executor_ != nullptr, "warm_up before load_weights");
  LOCKSTEP_RETURN_IF_ERROR(transformer_->warm_up());
  executor_->capture_graphs();
  kv_cache_tokens_.store(std::int64_t{cache_->block_count()} * device::kKvBlockTokens, std::memory_order_release);
  return {};
}

Status StepEngine::submit_all(std::span<GenerationRequest> requests) {
  const std::int64_t kv_cache_tokens = kv_cache_tokens_.load(std::memory_order_acquire);
  if (kv_cache_tokens == 0) {
    return Error{ErrorCode::kResourceExhausted, "this rank is still loading its weights: try again when /ready says so"};
  }
  for (const GenerationRequest& request : requests) {
    LOCKSTEP_RETURN_IF_ERROR(
        check_request(request, {.vocabulary_size = parts_.config->vocabulary_size, .max_model_len = max_model_len_, .kv_cache_tokens = kv_cache_tokens}));
  }
  std::vector<std::unique_ptr<Sequence>> sequences;
  sequences.reserve(requests.size());
  for (GenerationRequest& request : requests) {
    sequences.push_back(accept_request(request, *parts_.config, parts_.clock->now()));
  }
  return inbox_.submit(sequences);
}

Status StepEngine::run() {
  LOCKSTEP_CHECK(kv_cache_tokens_.load(std::memory_order_relaxed) > 0, "run before warm_up");
  parts_.progress->advance(0, -1, comm::StepPhase::kAgreeing);
  // Other ranks may still be loading, which is no failure: their heartbeats show it, and the start's own time limit is the daemon's.
  Status status = proposer_.handshake();
  if (status) {
    status = agree_graphs();
  }
  if (status) {
    running_.store(true, std::memory_order_release);
    status = run_steps();
  }
  inbox_.close();
  running_.store(false, std::memory_order_release);
  draining_.store(true, std::memory_order_release);
  if (!status) {
    const Error& error = status.error();
    if (error.code == ErrorCode::kDiverged && parts_.observer != nullptr) {
      parts_.observer->on_divergence(std::string_view(error.message).substr(0, error.message.find(' ')));  // messages of decide() begin with the field
    }
    end_all(means_rank_lost(error.code) ? FinishReason::kRankLost : FinishReason::kError, &error);
  } else {
    end_all(FinishReason::kCancelled, nullptr);
  }
  parts_.progress->advance(step_, -1, comm::StepPhase::kStopped);
  return status;
}

Status StepEngine::agree_graphs() {
  LOCKSTEP_RETURN_IF_ERROR(executor_->agree_graphs());
  graph_report_ = to_string(executor_->graph_summary());
  return {};
}

Status StepEngine::run_steps() {
  bool asleep = true;  // nobody has anything before the first step
  last_agreement_ = parts_.clock->now();
  for (;; ++step_) {
    if (!proposer_.is_proposed()) {
      LOCKSTEP_RETURN_IF_ERROR(propose_when_awake(asleep));
    }
    StepRecord record;
    LOCKSTEP_RETURN_IF_ERROR(agree(record));
    if (plan_.draining && !draining_.load(std::memory_order_acquire)) {
      request_drain();  // echoed by every member: the group leaves once all have closed admission and are empty
    }
    if (plan_.action == comm::StepAction::kRun) {
      if (options_.agreement == AgreementMode::kPipelined && parts_.view.size() > 1) {  // alone there is nothing to hide, and requests would wait for nothing
        LOCKSTEP_RETURN_IF_ERROR(propose_ahead());
      }
      LOCKSTEP_RETURN_IF_ERROR(compute(record));
    }
    observe(record);
    if (plan_.action == comm::StepAction::kStop) {
      return {};
    }
    asleep = plan_.action == comm::StepAction::kSleep;
  }
}

Result<bool> StepEngine::plan_or_sleep(bool asleep) {
  const bool keeps_alive = parts_.view.my_index == 0 && parts_.view.size() > 1;
  while (true) {
    take_messages();
    plan_next();
    const bool wants_step = next_batch_.rows() > 0 || planner_->waiting_count() > 0 || messages_.wish != comm::ControlWish::kNone;
    LOCKSTEP_ASSIGN_OR_RETURN(const bool woken, inbox_.woken());
    const bool keep_alive_due = keeps_alive && planned_ - last_agreement_ >= options_.keep_alive_interval;
    if (!asleep || wants_step || woken || keep_alive_due) {
      return woken;
    }
    if (Status status = parts_.watch != nullptr ? parts_.watch->failure() : Status{}; !status) {
      Error error = std::move(status).error();
      error.message = fmt::format("asleep before step {}: {}", step_, error.message);
      return error;
    }
    parts_.progress->advance(step_, -1, comm::StepPhase::kSleeping);
    LOCKSTEP_RETURN_IF_ERROR(inbox_.sleep(planned_ + (parts_.view.size() > 1 ? kSleepCheckInterval : options_.keep_alive_interval)));
  }
}

PromptsBesideStreams StepEngine::rows_elsewhere() const {
  const std::int64_t tokens = std::accumulate(plan_.tokens_per_member.begin(), plan_.tokens_per_member.end(), std::int64_t{0});
  // A stream has one row; whoever else has rows has them of a prompt.
  const std::int64_t streams = (tokens - plan_.prefill_tokens_total) - (batch_.rows() - batch_.prefill_tokens);
  const std::int64_t requests = plan_.requests_total - std::ssize(batch_.entries);
  return {.streams_elsewhere = streams, .prompts_elsewhere = requests - streams, .tokens = prompt_pace_.tokens()};
}

void StepEngine::plan_next() {
  plan_from_ = parts_.clock->now();
  planner_->plan(plan_from_, rows_elsewhere(), next_batch_);
  planned_ = parts_.clock->now();
}

void StepEngine::take_messages() {
  inbox_.take(messages_);
  for (std::unique_ptr<Sequence>& sequence : messages_.submitted) {
    planner_->add(std::move(sequence));
  }
  for (const EngineInbox::End& end : messages_.ends) {
    output_->end_request(end.id, end.reason, nullptr);
  }
  output_->deliver();
}

Status StepEngine::propose(std::int64_t step) {
  next_wish_ = choice_ ? choice_->propose(own_shape(next_batch_), step) : MicroBatchWish{.count = options_.micro_batches};
  return proposer_.propose({.step = step,
                            .tokens = next_batch_.rows(),
                            .prefill_tokens = next_batch_.prefill_tokens,
                            .requests = static_cast<std::int32_t>(next_batch_.entries.size()),
                            .padded_tokens = next_batch_.rows(),
                            .micro_batches = next_wish_.count,
                            .graph_mode = executor_->propose_graph_mode(next_batch_),
                            .waiting = next_batch_.waiting,
                            .free_kv_blocks = cache_->free_count(),
                            .used_kv_blocks = cache_->block_count() - cache_->free_count(),
                            .wish = messages_.wish});
}

Status StepEngine::propose_when_awake(bool asleep) {
  LOCKSTEP_ASSIGN_OR_RETURN(const bool woken, plan_or_sleep(asleep));
  inbox_.enter(step_);
  if (asleep && !woken && parts_.wake_sender != nullptr) {
    parts_.wake_sender->broadcast_wake(parts_.view.epoch, step_);
  }
  parts_.progress->advance(step_, -1, comm::StepPhase::kComputing);
  agree_from_ = parts_.clock->now();
  LOCKSTEP_RETURN_IF_ERROR(propose(step_));
  if (asleep) {
    proposer_.came_out_of_sleep();
  }
  return {};
}

Status StepEngine::propose_ahead() {
  // A rank that hangs in here has not given its column: it must not look like one that waits.
  parts_.progress->advance(step_, -1, comm::StepPhase::kComputing);
  take_messages();
  plan_next();
  LOCKSTEP_RETURN_IF_ERROR(inbox_.woken());  // for the error of a wake that cannot be: a step that runs needs none
  inbox_.enter(step_ + 1);
  agree_from_.reset();
  return propose(step_ + 1);
}

Status StepEngine::agree(StepRecord& record) {
  LOCKSTEP_RETURN_IF_ERROR(proposer_.await_plan(plan_));
  std::swap(batch_, next_batch_);
  const MicroBatchWish wish = next_wish_;
  BatchPlanner::fill_late_tokens(batch_);
  last_agreement_ = proposer_.agreed();
  observe_span(SpanKind::kPlan, plan_from_, planned_);
  // Of one that was proposed ahead, what is left to wait for.
  observe_span(SpanKind::kAgree, agree_from_.value_or(proposer_.waited_from()), last_agreement_);
  record.step = step_;
  record.action = plan_.action;
  record.agreement_time = proposer_.time_spent();
  record.agreement_wait = proposer_.waited();
  record.kv_balance = plan_.kv_balance;
  record.late_member = plan_.late_member;
  record.micro_batches = plan_.micro_batches;
  record.micro_batch_reason = reason_for(wish, plan_);
  record.padded_tokens = plan_.padded_tokens;
  record.tokens_per_member = plan_.tokens_per_member;
  return {};
}

Status StepEngine::compute(StepRecord& record) {
  const TimePoint begin = parts_.clock->now();
  StepCosts costs;
  LOCKSTEP_RETURN_IF_ERROR(executor_->run(plan_, batch_, costs));
  proposer_.add_time(costs.agreement_time);
  const TimePoint computed = parts_.clock->now();
  LOCKSTEP_ASSIGN_OR_RETURN(const StepOutput::Counts counts, output_->sample(batch_, computed));
  const TimePoint sampled = parts_.clock->now();
  output_->deliver();
  const TimePoint delivered = parts_.clock->now();
  observe_span(SpanKind::kSample, computed, sampled);
  observe_span(SpanKind::kDeliver, sampled, delivered);
  record.generated_tokens = counts.generated_tokens;
  record.dropped_rows = counts.dropped_rows;
  record.tokens = batch_.rows();
  record.prefill_tokens = batch_.prefill_tokens;
  record.requests = static_cast<std::int32_t>(batch_.entries.size());
  record.nonempty_micro_batches = costs.nonempty_micro_batches;
  record.graph_mode = costs.graph_mode;
  record.wire_bytes = costs.wire_bytes;
  record.crossed_rows = costs.crossed_rows;
  record.dispatch_time = costs.exchange_times.dispatch;
  record.combine_time = costs.exchange_times.combine;
  record.dispatch_exposed_time = costs.exchange_times.dispatch_exposed;
  record.combine_exposed_time = costs.exchange_times.combine_exposed;
  record.exposed_core_lost_time = costs.exchange_times.core_lost;
  record.step_time = delivered - begin;
  if (record.tokens > 0) {
    record.kind = record.prefill_tokens == 0 ? StepKind::kDecode : (record.prefill_tokens == record.tokens ? StepKind::kPrefill : StepKind::kMixed);
  }
  const BatchDescriptor shape = own_shape(batch_);
  const auto milliseconds = [](Duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); };
  const double duration_ms = milliseconds(computed - begin);
  timings_.record(record.tokens > 0 ? shape.num_tokens : 0, duration_ms);
  prompt_pace_.record(duration_ms, batch_.prefill_tokens, plan_.prefill_tokens_total);
  if (choice_ && record.tokens > 0) {
    const double exchange_ms = milliseconds(costs.exchange_times.dispatch + costs.exchange_times.combine);
    choice_->record(shape, plan_.micro_batches, step_, duration_ms, costs.exchanges_timed ? std::optional(exchange_ms) : std::nullopt);
  }
  return {};
}

void StepEngine::end_all(FinishReason reason, const Error* error) {
  inbox_.take(messages_);
  for (std::unique_ptr<Sequence>& sequence : messages_.submitted) {
    planner_->add(std::move(sequence));
  }
  output_->end_all(reason, error);
}

void StepEngine::observe_span(SpanKind kind, TimePoint begin, TimePoint end) {
  if (parts_.observer != nullptr) {
    parts_.observer->on_span({.kind = kind, .step = step_, .begin = begin, .end = end});
  }
}

void StepEngine::observe(const StepRecord& record) {
  if (parts_.observer == nullptr) {
    return;
  }
  parts_.observer->on_step(record);
  parts_.observer->on_queue({.running = planner_->running_count(),
                             .waiting = planner_->waiting_count(),
                             .kv_blocks_used = cache_->block_count() - cache_->free_count(),
                             .kv_blocks_total = cache_->block_count(),
                             .preemptions = planner_->preemptions()});
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::create(const EngineOptions& options, EngineParts parts) {
  LOCKSTEP_RETURN_IF_ERROR(check_engine_options(options, *parts.config, parts.view.size()));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<device::Ops> ops, parts.device->make_ops());
  // Everything that must be equal on all ranks, for answers to be one and buffers to fit.
  std::string identity = fmt::format(
      "options {:x}, model {:x}, weights {:x}, instruction set {}, batched tokens {}, micro-batches {}, agreement {}, gathered rows {}, combine {}, graphs {} "
      "up to {}, block {}",
      options.options_hash, model::hash_model_config(*parts.config), parts.weights->hash(), ops->instruction_set(), options.max_num_batched_tokens,
      options.micro_batches_auto ? "auto" : std::to_string(options.micro_batches), options.agreement == AgreementMode::kPipelined ? "pipelined" : "sync",
      options.gather_rows, options.combine == comm::CombineMode::kPerRank ? "per-rank" : "per-expert", static_cast<int>(options.graphs),
      options.graph_tokens_max, device::kKvBlockTokens);
  return std::unique_ptr<Engine>(std::make_unique<StepEngine>(options, std::move(parts), std::move(identity)));
}

}  // namespace lockstep::scheduler
