// StepObserver: what the engine tells about its steps and requests; the daemon makes it metrics.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "lockstep/comm/step_plan.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/forward_context.hpp"
#include "lockstep/scheduler/request.hpp"

namespace lockstep::scheduler {

enum class StepKind : std::uint8_t { kPrefill, kDecode, kMixed, kIdle };  ///< by this rank's rows; kIdle: it had none

/// Why a step has as many micro-batches as it has, as this rank sees it.
enum class MicroBatchReason : std::uint8_t {
  kOption,    ///< --micro-batches is a number
  kTrial,     ///< auto: tried, to know what it costs
  kMeasured,  ///< auto: the fastest of those that were tried, or there is nothing to hide
  kFewRows,   ///< there are fewer rows than micro-batches were wished for
  kPeer,      ///< what another rank wishes for
};
inline constexpr std::size_t kMicroBatchReasonCount = 5;

/// One finished step of this rank.
struct StepRecord {
  std::int64_t step = 0;
  comm::StepAction action = comm::StepAction::kSleep;
  StepKind kind = StepKind::kIdle;
  std::int32_t tokens = 0;
  std::int32_t prefill_tokens = 0;
  std::int32_t padded_tokens = 0;
  std::int32_t generated_tokens = 0;
  std::int32_t dropped_rows = 0;  ///< of requests that had ended before they were computed
  std::int32_t requests = 0;
  std::int32_t micro_batches = 1;
  MicroBatchReason micro_batch_reason = MicroBatchReason::kOption;
  std::int32_t nonempty_micro_batches = 0;
  GraphMode graph_mode = GraphMode::kNone;          ///< as what this rank launched it
  std::span<const std::int32_t> tokens_per_member;  ///< [members]; valid during the call
  Duration agreement_time{};                        ///< of the step thread, from our proposal to the plan, waiting for others included; pipelined: less what
                                                    ///< the step before was computed in
  Duration agreement_wait{};                        ///< of agreement_time, with nothing to do but wait for the others
  double kv_balance = 1.0;                          ///< of the members' KV caches; see comm::StepPlan
  int late_member = -1;                             ///< of the agreement before; see comm::StepPlan
  Duration dispatch_time{};                         ///< in dispatch, packing included, under compute or not
  Duration combine_time{};
  Duration dispatch_exposed_time{};  ///< of dispatch_time, while nothing was computed: outside of stages, or in one that had no core
  Duration combine_exposed_time{};
  Duration exposed_core_lost_time{};  ///< of the two, within stages whose thread had no core; split steps on a host's memory only
  Duration step_time{};               ///< from the plan to delivery
  std::uint64_t wire_bytes = 0;       ///< put on the wire in this step
  std::uint64_t crossed_rows = 0;     ///< rows sent to other members in this step
};

/// What a rank did in a step. kEmbed to kHead are the stages of the step program, in its order; kAttention includes routing, kHead the logits. kGraph: stages
/// that a device ran as one piece.
enum class SpanKind : std::uint8_t { kPlan, kAgree, kEmbed, kAttention, kDense, kDispatch, kExperts, kCombine, kWeigh, kHead, kSample, kDeliver, kGraph };
inline constexpr std::size_t kSpanKindCount = 13;
[[nodiscard]] std::string_view span_kind_name(SpanKind kind);  ///< "attention"; "unknown" for none of them

/// Where it ran: a step that is not split runs on the step thread alone. On the lanes of a device's streams are its own times of what the others' spans launch.
enum class SpanLane : std::uint8_t { kStep, kCompute, kComm, kDeviceCompute, kDeviceComm };
inline constexpr std::size_t kSpanLaneCount = 5;

/// From when to when, by the steady clock; a device's times are later by what the host took to see that the step was done.
struct SpanRecord {
  SpanKind kind = SpanKind::kPlan;
  SpanLane lane = SpanLane::kStep;
  std::int32_t layer = -1;        ///< -1: of no layer
  std::int32_t micro_batch = -1;  ///< -1: of the whole step
  std::int64_t step = 0;
  TimePoint begin{};
  TimePoint end{};
  Duration off_core{};  ///< of it, its thread had no core; 0 where that is not measured: for exchanges, and outside of split steps
};

/// State of the queues after a step.
struct QueueRecord {
  std::int32_t running = 0;
  std::int32_t waiting = 0;
  std::int32_t kv_blocks_used = 0;
  std::int32_t kv_blocks_total = 0;
  std::int64_t preemptions = 0;  ///< since the start: requests that gave their blocks up and were computed again
};

/// Times of one finished request.
struct RequestRecord {
  FinishReason reason = FinishReason::kStop;
  std::int32_t prompt_tokens = 0;
  std::int32_t generated_tokens = 0;
  std::int32_t prefill_chunks = 0;
  Duration queue_time{};
  Duration time_to_first_token{};  ///< 0 when there was none
  Duration total_time{};
};

enum class CollectiveKind : std::uint8_t { kAgreement, kDispatch, kCombine };

/// One collective about to start: the same sequence on every member.
struct CollectiveRecord {
  CollectiveKind kind = CollectiveKind::kAgreement;
  std::int64_t step = 0;
  std::int32_t layer = -1;
  std::int32_t micro_batch = -1;
};

/// Threads  called on the engine's thread; one call at a time; must not block, allocate or log.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  virtual void on_step(const StepRecord&) {}
  virtual void on_queue(const QueueRecord&) {}
  virtual void on_first_token(Duration /*since_arrival*/) {}
  virtual void on_inter_token(Duration /*since_last_token*/) {}
  virtual void on_request_finished(const RequestRecord&) {}
  virtual void on_collective(const CollectiveRecord&) {}
  /// Each span of a step, once the step's stages have run: before its on_step, or never when the step fails. Of one lane in the order of time, but a plan that
  /// was made ahead lies before the stages of the step before.
  virtual void on_span(const SpanRecord&) {}
  /// Asked before each step: whether spans on a device's lanes are wanted, which costs the device time stamps.
  [[nodiscard]] virtual bool wants_device_times() const { return false; }
  virtual void on_divergence(std::string_view /*field*/) {}

 protected:
  StepObserver() = default;
};

}  // namespace lockstep::scheduler
