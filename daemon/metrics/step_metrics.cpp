#include "daemon/metrics/step_metrics.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace lockstep::daemon {
namespace {

// The request buckets hold vLLM's, so that its users' panels keep their meaning, and finer ones below, as small models answer in milliseconds.
constexpr std::array kFirstTokenBuckets{0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,   0.25,  0.5,   0.75,
                                        1.0,   2.5,    5.0,   7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
constexpr std::array kInterTokenBuckets{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,  0.15, 0.2, 0.3,
                                        0.4,    0.5,   0.75,   1.0,   2.5,  5.0,   7.5,  10.0,  20.0, 40.0, 80.0};
constexpr std::array kRequestBuckets{0.005, 0.01, 0.025, 0.05, 0.1,  0.2,  0.3,  0.5,   0.8,   1.0,   1.5,   2.0,    2.5,   5.0,
                                     10.0,  15.0, 20.0,  30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
constexpr std::array kStepBuckets{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0};
constexpr std::array kAgreementBuckets{0.000001, 0.0000025, 0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025,
                                       0.0005,   0.001,     0.0025,   0.005,   0.01,     0.025,   0.1,    1.0};
constexpr std::array kTokenBuckets{1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0};

constexpr std::array<const char*, 4> kKindNames{"prefill", "decode", "mixed", "idle"};
constexpr std::array<const char*, 5> kReasonNames{"stop", "length", "cancelled", "error", "rank_lost"};
constexpr std::array<const char*, scheduler::kMicroBatchReasonCount> kMicroBatchReasons{"option", "trial", "cost", "small", "peer"};

constexpr std::array<const char*, 3> kGraphModes{"none", "piecewise", "full"};  // by GraphMode

double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

StepMetrics::StepMetrics(AtomicTable& table, std::string_view transport, int world_size)
    : last_step_(table.gauge("lockstep_last_step_timestamp_seconds", "When this rank last finished a step, or began, in seconds since 1970.")),
      agreement_seconds_(table.histogram(
          "lockstep_coordination_duration_seconds",
          "From this rank's proposal to the group's plan, waiting for the other ranks included; pipelined, without the step computed meanwhile.",
          kAgreementBuckets, {{"transport", std::string(transport)}})),
      agreement_wait_seconds_(
          table.counter("lockstep_coordination_wait_seconds_total",
                        "Time for which this rank did nothing but wait for the group's plan. The rank that the others wait for waits least.")),
      core_lost_seconds_(table.counter(
          "lockstep_comm_core_lost_seconds_total",
          "Of the exposed exchange time, what lies within stages of split steps whose thread had no core: what moves the bytes, or another process, "
          "had it. A core to spare for each rank takes it away.")),
      balance_(
          table.gauge("lockstep_load_balance_ratio",
                      "Mean over maximum of the ranks' loads (tokens: rows computed; kv: blocks of the KV cache in use) in the last step with work; 1 is even.",
                      {{"resource", "tokens"}})),
      kv_balance_(table.gauge("lockstep_load_balance_ratio", "", {{"resource", "kv"}})),
      wire_bytes_(table.counter("lockstep_wire_bytes_total", "Bytes that this rank put on the wire for expert exchanges.")),
      crossed_rows_(table.counter("lockstep_crossed_rows_total", "Rows that this rank sent to other ranks.")),
      dropped_rows_(table.counter("lockstep_dropped_rows_total", "Rows computed of requests that had ended meanwhile; with --agreement pipelined alone.")),
      prompt_tokens_(table.counter("lockstep_prompt_tokens_total", "Prompt tokens computed, and tokens computed again after a preemption.")),
      generated_tokens_(table.counter("lockstep_generated_tokens_total", "Tokens generated.")),
      running_(table.gauge("lockstep_requests_running", "Requests admitted: they have KV blocks.")),
      waiting_(table.gauge("lockstep_requests_waiting", "Requests accepted that wait for room, preempted ones included.")),
      preemptions_(table.counter("lockstep_preemptions_total",
                                 "Times that a request gave its blocks of the KV cache up for an older one; its tokens so far are computed again later.")),
      kv_ratio_(table.gauge("lockstep_kv_cache_usage_ratio", "Used part of the KV cache, 0 to 1.")),
      kv_used_(table.gauge("lockstep_kv_cache_blocks", "Blocks of the KV cache.", {{"state", "used"}})),
      kv_free_(table.gauge("lockstep_kv_cache_blocks", "", {{"state", "free"}})),
      first_token_seconds_(table.histogram("lockstep_time_to_first_token_seconds", "From a request's arrival to its first token.", kFirstTokenBuckets)),
      inter_token_seconds_(table.histogram("lockstep_inter_token_seconds", "Between two tokens of a request.", kInterTokenBuckets)),
      queue_seconds_(table.histogram("lockstep_request_queue_seconds", "From a request's arrival to its first rows in a step.", kRequestBuckets)),
      request_seconds_(table.histogram("lockstep_request_duration_seconds", "From a request's arrival to its end.", kRequestBuckets)) {
  note_step_time();  // or a rank that has had nothing to do would seem to stand still since 1970
  add_steps(table);
  add_exchanges(table);
  for (int peer = 0; peer < world_size; ++peer) {
    late_.push_back(
        &table.counter("lockstep_last_arrival_total",
                       "Agreements to which that rank came last, and made another one wait for 0.1 ms or more; not those that end a sleep. Every rank "
                       "counts the same.",
                       {{"peer", std::to_string(peer)}}));
  }
  for (std::size_t i = 0; i < kReasons; ++i) {
    finished_[i] = &table.counter("lockstep_requests_finished_total", "Requests ended, by reason.", {{"reason", kReasonNames[i]}});
  }
  for (std::size_t i = 0; i < mismatches_.size(); ++i) {
    const std::string field = i < kGuards.size() ? std::string(kGuards[i]) : "other";
    mismatches_[i] =
        &table.counter("lockstep_vote_mismatch_total", "Steps in which the ranks disagreed about a guard; the group ends then.", {{"field", field}});
  }
}

void StepMetrics::note_step_time() {
  last_step_.set(std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
}

void StepMetrics::add_steps(AtomicTable& table) {
  for (std::size_t i = 0; i < kKinds; ++i) {
    const LabelSet labels{{"kind", kKindNames[i]}};
    steps_[i] = &table.counter("lockstep_steps_total", "Steps taken, by what this rank computed in them.", labels);
    step_seconds_[i] = &table.histogram("lockstep_step_duration_seconds", "From the plan to delivery; steps in which the group agreed to sleep are not in it.",
                                        kStepBuckets, labels);
    step_tokens_[i] = &table.histogram("lockstep_step_tokens", "Rows of this rank in a step.", kTokenBuckets, labels);
  }
  for (const bool split : {false, true}) {
    for (std::size_t reason = 0; reason < kMicroBatchReasons.size(); ++reason) {
      micro_batch_steps_[static_cast<std::size_t>(split)][reason] = &table.counter(
          "lockstep_microbatch_steps_total",
          "Steps with work, by whether they were split in micro-batches or taken whole, and why: option, --micro-batches is a number; trial and cost, "
          "auto tries, or has measured; small, fewer rows than micro-batches; peer, another rank's wish.",
          {{"decision", split ? "split" : "whole"}, {"reason", kMicroBatchReasons[reason]}});
    }
  }
  for (std::size_t mode = 0; mode < graph_steps_.size(); ++mode) {
    graph_steps_[mode] = &table.counter("lockstep_graph_steps_total",
                                        "Steps with rows of this rank, by how they were launched: full, as one graph; piecewise, as graphs between exchanges; "
                                        "none, without, as no graph fits them or there are none here.",
                                        {{"mode", kGraphModes[mode]}});
  }
}

void StepMetrics::add_exchanges(AtomicTable& table) {
  for (const bool exposed : {false, true}) {
    const char* const help =
        "Time from the start of an exchange of rows to its end. exposed true: while nothing was computed, be it that a stage had no core; false: hidden under "
        "the computation of another micro-batch.";
    const auto index = static_cast<std::size_t>(exposed);
    dispatch_seconds_[index] = &table.counter("lockstep_comm_seconds_total", help, {{"op", "dispatch"}, {"exposed", exposed ? "true" : "false"}});
    combine_seconds_[index] = &table.counter("lockstep_comm_seconds_total", help, {{"op", "combine"}, {"exposed", exposed ? "true" : "false"}});
  }
}

void StepMetrics::on_step(const scheduler::StepRecord& record) {
  const auto kind = std::min(static_cast<std::size_t>(record.kind), kKinds - 1);
  steps_[kind]->add(1);
  note_step_time();
  agreement_seconds_.observe(seconds(record.agreement_time));
  agreement_wait_seconds_.add(seconds(record.agreement_wait));
  if (record.late_member >= 0 && static_cast<std::size_t>(record.late_member) < late_.size()) {
    late_[static_cast<std::size_t>(record.late_member)]->add(1);
  }
  if (record.action != comm::StepAction::kRun) {
    return;  // agreed to sleep: nothing was computed whose duration could be told
  }
  step_seconds_[kind]->observe(seconds(record.step_time));
  step_tokens_[kind]->observe(record.tokens);
  dispatch_seconds_[0]->add(seconds(record.dispatch_time - record.dispatch_exposed_time));
  dispatch_seconds_[1]->add(seconds(record.dispatch_exposed_time));
  combine_seconds_[0]->add(seconds(record.combine_time - record.combine_exposed_time));
  combine_seconds_[1]->add(seconds(record.combine_exposed_time));
  core_lost_seconds_.add(seconds(record.exposed_core_lost_time));
  wire_bytes_.add(static_cast<double>(record.wire_bytes));
  crossed_rows_.add(static_cast<double>(record.crossed_rows));
  dropped_rows_.add(record.dropped_rows);
  prompt_tokens_.add(record.prefill_tokens);
  generated_tokens_.add(record.generated_tokens);
  count_group(record);
}

void StepMetrics::count_group(const scheduler::StepRecord& record) {
  const auto reason = std::min(static_cast<std::size_t>(record.micro_batch_reason), scheduler::kMicroBatchReasonCount - 1);
  micro_batch_steps_[record.micro_batches > 1 ? 1 : 0][reason]->add(1);
  if (record.tokens > 0) {
    graph_steps_[std::min(static_cast<std::size_t>(record.graph_mode), graph_steps_.size() - 1)]->add(1);
  }
  kv_balance_.set(record.kv_balance);
  if (!record.tokens_per_member.empty()) {
    const auto most = static_cast<double>(std::ranges::max(record.tokens_per_member));
    const auto all = static_cast<double>(std::accumulate(record.tokens_per_member.begin(), record.tokens_per_member.end(), std::int64_t{0}));
    balance_.set(most > 0 ? all / static_cast<double>(record.tokens_per_member.size()) / most : 1.0);
  }
}

void StepMetrics::on_queue(const scheduler::QueueRecord& record) {
  running_.set(record.running);
  waiting_.set(record.waiting);
  preemptions_.set(static_cast<double>(record.preemptions));
  kv_used_.set(record.kv_blocks_used);
  kv_free_.set(record.kv_blocks_total - record.kv_blocks_used);
  kv_ratio_.set(record.kv_blocks_total > 0 ? static_cast<double>(record.kv_blocks_used) / record.kv_blocks_total : 0.0);
}

void StepMetrics::on_first_token(Duration since_arrival) {
  first_token_seconds_.observe(seconds(since_arrival));
}

void StepMetrics::on_inter_token(Duration since_last_token) {
  inter_token_seconds_.observe(seconds(since_last_token));
}

void StepMetrics::on_request_finished(const scheduler::RequestRecord& record) {
  finished_[std::min(static_cast<std::size_t>(record.reason), kReasons - 1)]->add(1);
  queue_seconds_.observe(seconds(record.queue_time));
  request_seconds_.observe(seconds(record.total_time));
}

void StepMetrics::on_divergence(std::string_view field) {
  // A 64-bit guard travels as two words, "step_low" and "step_high"; for a reader they are one.
  const auto* const found = std::ranges::find_if(kGuards, [field](std::string_view guard) { return field.starts_with(guard); });
  mismatches_[static_cast<std::size_t>(found - kGuards.begin())]->add(1);
}

}  // namespace lockstep::daemon
