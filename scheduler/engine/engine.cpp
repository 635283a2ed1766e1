#include "lockstep/scheduler/engine.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "lockstep/comm/step_agreement.hpp"
#include "lockstep/core/check.hpp"
#include "lockstep/core/hash.hpp"
#include "lockstep/model/transformer.hpp"
#include "scheduler/batch/batch_planner.hpp"
#include "scheduler/engine/engine_inbox.hpp"
#include "scheduler/engine/request_checks.hpp"
#include "scheduler/engine/step_output.hpp"
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
        agreement_(*parts_.communicator, parts_.view) {
    inbox_.set_epoch(parts_.view.epoch);
    if (options_.micro_batches_auto) {
      choice_.emplace(options_.max_num_batched_tokens);
    }
  }

  Status load() override;
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
  const std::string& config_identity() const override { return config_identity_; }

 private:
  [[nodiscard]] Status run_steps();
  /// Takes messages and plans; sleeps while the group sleeps and there is nothing to do. True when a peer's wake ended the sleep.
  [[nodiscard]] Result<bool> plan_or_sleep(bool asleep);
  void take_messages();
  [[nodiscard]] Status agree(StepRecord& record);
  /// What decide() cannot know: that the plan fits this engine's buffers. Options are equal on all members, so one beyond them has a bug of its own.
  [[nodiscard]] Status check_plan() const;
  [[nodiscard]] Status compute(StepRecord& record);
  /// The shape of this rank's rows, which is all that it knows before the agreement.
  [[nodiscard]] BatchDescriptor own_shape() const { return step_shape(batch_.rows(), batch_.prefill_tokens == 0); }
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
  comm::StepAgreement agreement_;
  ForwardTimingTracker own_timings_;
  ForwardTimingTracker& timings_ = parts_.timing_tracker != nullptr ? *parts_.timing_tracker : own_timings_;
  std::optional<MicroBatchChoice> choice_;  ///< with --micro-batches auto
  std::unique_ptr<model::Transformer> transformer_;
  std::optional<KvCache> cache_;
  std::unique_ptr<BatchPlanner> planner_;
  std::unique_ptr<StepExecutor> executor_;
  std::optional<StepOutput> output_;  ///< set by load

  // The step thread's own.
  std::int64_t step_ = 0;
  EngineInbox::Messages messages_;
  StepBatch batch_;
  comm::StepPlan plan_;
  TimePoint last_agreement_{};

  std::atomic<bool> running_{false};
  std::atomic<bool> draining_{false};
  std::atomic<std::int64_t> kv_cache_tokens_{0};  ///< known after load
};

Status StepEngine::load() {
  const LoadWatch watch(*parts_.progress, parts_.watch);
  const model::ModelConfig& config = *parts_.config;
  const std::span<const std::int32_t> experts = placement_.experts_of(parts_.view.my_index);
  const std::int32_t logit_rows = std::min(options_.max_num_seqs, options_.max_num_batched_tokens);
  LOCKSTEP_ASSIGN_OR_RETURN(transformer_, model::Transformer::load(config, *parts_.weights, *parts_.device,
                                                                   {.rows_max = options_.max_num_batched_tokens,
                                                                    .group_rows_max = options_.max_num_batched_tokens * parts_.view.size(),
                                                                    .micro_batches_max = options_.micro_batches,
                                                                    .logit_rows_max = logit_rows,
                                                                    .positions_max = max_model_len_,
                                                                    .local_experts = {experts.begin(), experts.end()}},
                                                                   &watch));
  const std::int32_t blocks_per_table = KvCache::blocks_for(max_model_len_);
  const std::int64_t useful_blocks = std::int64_t{options_.max_num_seqs} * blocks_per_table;
  LOCKSTEP_ASSIGN_OR_RETURN(cache_, KvCache::create(*parts_.device, transformer_->kv_cache_specs(), options_.kv_cache_bytes, useful_blocks));
  planner_ = std::make_unique<BatchPlanner>(
      BatchLimits{.sequences_max = logit_rows, .tokens_max = options_.max_num_batched_tokens, .blocks_per_table = blocks_per_table}, *cache_);
  LOCKSTEP_ASSIGN_OR_RETURN(
      executor_, StepExecutor::create(
                     {.config = parts_.config,
                      .device = parts_.device,
                      .communicator = parts_.communicator,
                      .view = &parts_.view,
                      .placement = &placement_,
                      .transformer = transformer_.get(),
                      .cache = &*cache_,
                      .progress = parts_.progress,
                      .watch = parts_.watch,
                      .timing_tracker = &timings_,
                      .observer = parts_.observer},
                     {.rows_max = options_.max_num_batched_tokens, .micro_batches_max = options_.micro_batches, .stall_timeout = options_.stall_timeout}));
  output_.emplace(StepOutputParts{.planner = planner_.get(),
                                  .inbox = &inbox_,
                                  .sink = parts_.sink,
                                  .observer = parts_.observer,
                                  .clock = parts_.clock,
                                  .transformer = transformer_.get(),
                                  .executor = executor_.get()},
                  options_.max_num_batched_tokens);
  LOCKSTEP_RETURN_IF_ERROR(transformer_->warm_up());
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
  LOCKSTEP_CHECK(executor_ != nullptr, "run before load");
  parts_.progress->advance(0, -1, comm::StepPhase::kAgreeing);
  // Other ranks may still be loading, which is no failure: their heartbeats show it, and the start's own time limit is the daemon's.
  Status status = agreement_.handshake(config_hash_, comm::kProtocolVersion, Deadline::after(options_.stall_timeout, parts_.watch, *parts_.clock));
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

Status StepEngine::run_steps() {
  bool asleep = true;  // nobody has anything before the first step
  last_agreement_ = parts_.clock->now();
  for (;; ++step_) {
    LOCKSTEP_ASSIGN_OR_RETURN(const bool woken, plan_or_sleep(asleep));
    inbox_.enter(step_);
    if (asleep && !woken && parts_.wake_sender != nullptr) {
      parts_.wake_sender->broadcast_wake(parts_.view.epoch, step_);
    }
    StepRecord record;
    record.step = step_;
    LOCKSTEP_RETURN_IF_ERROR(agree(record));
    if (plan_.draining && !draining_.load(std::memory_order_acquire)) {
      request_drain();  // echoed by every member: the group leaves once all have closed admission and are empty
    }
    if (plan_.action == comm::StepAction::kRun) {
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
    const TimePoint plan_begin = parts_.clock->now();
    planner_->plan(plan_begin, batch_);
    const bool wants_step = batch_.rows() > 0 || planner_->waiting_count() > 0 || messages_.wish != comm::ControlWish::kNone;
    LOCKSTEP_ASSIGN_OR_RETURN(const bool woken, inbox_.woken());
    const TimePoint now = parts_.clock->now();
    const bool keep_alive_due = keeps_alive && now - last_agreement_ >= options_.keep_alive_interval;
    if (!asleep || wants_step || woken || keep_alive_due) {
      observe_span(SpanKind::kPlan, plan_begin, now);
      return woken;
    }
    if (Status status = parts_.watch != nullptr ? parts_.watch->failure() : Status{}; !status) {
      Error error = std::move(status).error();
      error.message = fmt::format("asleep before step {}: {}", step_, error.message);
      return error;
    }
    parts_.progress->advance(step_, -1, comm::StepPhase::kSleeping);
    LOCKSTEP_RETURN_IF_ERROR(inbox_.sleep(now + (parts_.view.size() > 1 ? kSleepCheckInterval : options_.keep_alive_interval)));
  }
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

Status StepEngine::agree(StepRecord& record) {
  const TimePoint begin = parts_.clock->now();
  parts_.progress->advance(step_, -1, comm::StepPhase::kComputing);
  const comm::StepProposal proposal{.step = step_,
                                    .epoch = parts_.view.epoch,
                                    .config_hash = config_hash_,
                                    .tokens = batch_.rows(),
                                    .prefill_tokens = batch_.prefill_tokens,
                                    .requests = static_cast<std::int32_t>(batch_.entries.size()),
                                    .padded_tokens = batch_.rows(),
                                    .micro_batches = choice_ ? choice_->propose(own_shape(), step_) : options_.micro_batches,
                                    .waiting = batch_.waiting,
                                    .free_kv_blocks = cache_->free_count(),
                                    .wish = messages_.wish};
  if (parts_.observer != nullptr) {
    parts_.observer->on_collective({.kind = CollectiveKind::kAgreement, .step = step_});
  }
  Status status = agreement_.start(proposal);
  if (status) {
    // Only now: a rank that hangs before it has given its column must not look like one that waits for the others'.
    parts_.progress->advance(step_, -1, comm::StepPhase::kAgreeing);
    status = agreement_.finish(plan_, Deadline::after(options_.stall_timeout, parts_.watch, *parts_.clock));
  }
  if (status) {
    status = check_plan();
  }
  if (!status) {
    Error error = std::move(status).error();
    // A divergence begins with the field's name, which on_divergence reports.
    error.message = error.code == ErrorCode::kDiverged ? fmt::format("{} (step {}, agreement)", error.message, step_)
                                                       : fmt::format("step {}, agreement: {}", step_, error.message);
    return error;
  }
  LOCKSTEP_CHECK(plan_.step == step_, "agreed on step {} in step {}", plan_.step, step_);
  last_agreement_ = parts_.clock->now();
  observe_span(SpanKind::kAgree, begin, last_agreement_);
  record.action = plan_.action;
  record.agreement_time = last_agreement_ - begin;
  record.micro_batches = plan_.micro_batches;
  record.padded_tokens = plan_.padded_tokens;
  record.tokens_per_member = plan_.tokens_per_member;
  return {};
}

Status StepEngine::check_plan() const {
  const std::vector<std::int32_t>& tokens = plan_.tokens_per_member;
  const auto over = std::ranges::find_if(tokens, [this](std::int32_t count) { return count > options_.max_num_batched_tokens; });
  if (over != tokens.end()) {
    const auto member = static_cast<int>(over - tokens.begin());
    return Error{ErrorCode::kDiverged,
                 fmt::format("tokens of member {} is {}, expected at most {} (--max-num-batched-tokens): a bug there; see its log, then restart the group",
                             member, *over, options_.max_num_batched_tokens),
                 member};
  }
  if (plan_.micro_batches > options_.micro_batches) {
    return Error{
        ErrorCode::kDiverged,
        fmt::format("micro_batches of the members with rows is {}, expected at most {} (--micro-batches): a bug there; see their logs, then restart the "
                    "group",
                    plan_.micro_batches, options_.micro_batches)};
  }
  const std::int32_t mine = tokens[static_cast<std::size_t>(parts_.view.my_index)];
  LOCKSTEP_CHECK(mine == batch_.rows(), "step {}: agreed on {} rows of this rank, which has {}", step_, mine, batch_.rows());
  return {};
}

Status StepEngine::compute(StepRecord& record) {
  const TimePoint begin = parts_.clock->now();
  StepCosts costs;
  LOCKSTEP_RETURN_IF_ERROR(executor_->run(plan_, batch_, costs));
  const TimePoint computed = parts_.clock->now();
  LOCKSTEP_ASSIGN_OR_RETURN(record.generated_tokens, output_->sample(batch_, computed));
  const TimePoint sampled = parts_.clock->now();
  output_->deliver();
  const TimePoint delivered = parts_.clock->now();
  observe_span(SpanKind::kSample, computed, sampled);
  observe_span(SpanKind::kDeliver, sampled, delivered);
  record.tokens = batch_.rows();
  record.prefill_tokens = batch_.prefill_tokens;
  record.requests = static_cast<std::int32_t>(batch_.entries.size());
  record.nonempty_micro_batches = costs.nonempty_micro_batches;
  record.wire_bytes = costs.wire_bytes;
  record.crossed_rows = costs.crossed_rows;
  record.dispatch_time = costs.exchange_times.dispatch;
  record.combine_time = costs.exchange_times.combine;
  record.dispatch_exposed_time = costs.exchange_times.dispatch_exposed;
  record.combine_exposed_time = costs.exchange_times.combine_exposed;
  record.step_time = delivered - begin;
  if (record.tokens > 0) {
    record.kind = record.prefill_tokens == 0 ? StepKind::kDecode : (record.prefill_tokens == record.tokens ? StepKind::kPrefill : StepKind::kMixed);
  }
  const BatchDescriptor shape = own_shape();
  const double duration_ms = std::chrono::duration<double, std::milli>(computed - begin).count();
  timings_.record(record.tokens > 0 ? shape.num_tokens : 0, duration_ms);
  if (choice_ && record.tokens > 0) {
    choice_->record(shape, plan_.micro_batches, step_, duration_ms);
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
                             .kv_blocks_total = cache_->block_count()});
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::create(const EngineOptions& options, EngineParts parts) {
  LOCKSTEP_RETURN_IF_ERROR(check_engine_options(options, *parts.config, parts.view.size()));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<device::Ops> ops, parts.device->make_ops());
  // Everything that must be equal on all ranks, for answers to be one and buffers to fit.
  std::string identity =
      fmt::format("options {:x}, model {:x}, weights {:x}, instruction set {}, batched tokens {}, micro-batches {}, block {}", options.options_hash,
                  model::hash_model_config(*parts.config), parts.weights->hash(), ops->instruction_set(), options.max_num_batched_tokens,
                  options.micro_batches_auto ? "auto" : std::to_string(options.micro_batches), device::kKvBlockTokens);
  return std::unique_ptr<Engine>(std::make_unique<StepEngine>(options, std::move(parts), std::move(identity)));
}

}  // namespace lockstep::scheduler
