// TraceObserver: keeps the spans of the engine's steps for GET /debug/trace.
#pragma once

#include "daemon/trace/trace_ring.hpp"
#include "lockstep/scheduler/step_observer.hpp"

namespace lockstep::daemon {

/// Passes all else on.
/// Ownership  owns the ring; borrows `next`, which outlives it.      Threads  as StepObserver; ring(): any.
class TraceObserver final : public scheduler::StepObserver {
 public:
  explicit TraceObserver(scheduler::StepObserver& next) : next_(next) {}
  [[nodiscard]] const TraceRing& ring() const { return ring_; }

  void on_span(const scheduler::SpanRecord& record) override { ring_.push(record); }
  [[nodiscard]] bool wants_device_times() const override { return ring_.is_watched(SteadyClock::instance().now()); }
  void on_step(const scheduler::StepRecord& record) override {
    ring_.complete(record.step);
    next_.on_step(record);
  }
  void on_queue(const scheduler::QueueRecord& record) override { next_.on_queue(record); }
  void on_first_token(Duration since_arrival) override { next_.on_first_token(since_arrival); }
  void on_inter_token(Duration since_last_token) override { next_.on_inter_token(since_last_token); }
  void on_request_finished(const scheduler::RequestRecord& record) override { next_.on_request_finished(record); }
  void on_collective(const scheduler::CollectiveRecord& record) override { next_.on_collective(record); }
  void on_divergence(std::string_view field) override { next_.on_divergence(field); }

 private:
  scheduler::StepObserver& next_;
  TraceRing ring_;
};

}  // namespace lockstep::daemon
