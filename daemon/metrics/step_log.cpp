#include "daemon/metrics/step_log.hpp"

#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lockstep::daemon {
namespace {

using scheduler::CollectiveKind;
using scheduler::StepKind;

std::string_view name_of(comm::StepAction action) {
  switch (action) {
    case comm::StepAction::kSleep:
      return "sleep";
    case comm::StepAction::kRun:
      return "run";
    case comm::StepAction::kSpin:
      return "agree again";
    case comm::StepAction::kStop:
      break;
  }
  return "stop";
}

std::string_view name_of(StepKind kind) {
  switch (kind) {
    case StepKind::kPrefill:
      return "prefill";
    case StepKind::kDecode:
      return "decode";
    case StepKind::kMixed:
      return "mixed";
    case StepKind::kIdle:
      break;
  }
  return "idle";
}

std::string_view name_of(CollectiveKind kind) {
  switch (kind) {
    case CollectiveKind::kAgreement:
      return "agreement";
    case CollectiveKind::kDispatch:
      return "dispatch";
    case CollectiveKind::kCombine:
      break;
  }
  return "combine";
}

double microseconds(Duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

}  // namespace

void StepLog::on_step(const scheduler::StepRecord& record) {
  logger_.trace(
      "step {}: {}, {}, {} requests, {} tokens of {} by member, {} of them prompt, {} generated, {} micro-batches; agreement {:.0f} us, step {:.0f} us, "
      "dispatch {:.0f} us, combine {:.0f} us, {} bytes sent",
      record.step, name_of(record.action), name_of(record.kind), record.requests, record.tokens, fmt::join(record.tokens_per_member, " "),
      record.prefill_tokens, record.generated_tokens, record.micro_batches, microseconds(record.agreement_time), microseconds(record.step_time),
      microseconds(record.dispatch_time), microseconds(record.combine_time), record.wire_bytes);
  next_.on_step(record);
}

void StepLog::on_queue(const scheduler::QueueRecord& record) {
  // After each step, also when nothing has changed.
  if (record.running != last_queue_.running || record.waiting != last_queue_.waiting || record.kv_blocks_used != last_queue_.kv_blocks_used) {
    logger_.trace("queue: {} running, {} waiting, {} of {} KV blocks", record.running, record.waiting, record.kv_blocks_used, record.kv_blocks_total);
    last_queue_ = record;
  }
  next_.on_queue(record);
}

void StepLog::on_request_finished(const scheduler::RequestRecord& record) {
  logger_.trace("request finished: {}, {} prompt tokens in {} chunks, {} generated; queued {:.0f} us, first token after {:.0f} us, all {:.0f} us",
                scheduler::finish_reason_name(record.reason), record.prompt_tokens, record.prefill_chunks, record.generated_tokens,
                microseconds(record.queue_time), microseconds(record.time_to_first_token), microseconds(record.total_time));
  next_.on_request_finished(record);
}

void StepLog::on_collective(const scheduler::CollectiveRecord& record) {
  logger_.trace("{} of step {}, layer {}, micro-batch {}", name_of(record.kind), record.step, record.layer, record.micro_batch);
  next_.on_collective(record);
}

}  // namespace lockstep::daemon
