// StepLog: every step, request and collective as lines of the log, for --log-level trace.
#pragma once

#include <spdlog/logger.h>

#include "lockstep/scheduler/step_observer.hpp"

namespace lockstep::daemon {

/// Passes on to another observer what it writes down. Made for the level trace only: a line takes longer than what it tells of.
/// Ownership  borrows both, which outlive it.      Threads  as StepObserver.
class StepLog final : public scheduler::StepObserver {
 public:
  StepLog(scheduler::StepObserver& next, spdlog::logger& logger) : next_(next), logger_(logger) {}
  void on_step(const scheduler::StepRecord& record) override;
  void on_queue(const scheduler::QueueRecord& record) override;
  void on_first_token(Duration since_arrival) override { next_.on_first_token(since_arrival); }
  void on_inter_token(Duration since_last_token) override { next_.on_inter_token(since_last_token); }
  void on_request_finished(const scheduler::RequestRecord& record) override;
  void on_collective(const scheduler::CollectiveRecord& record) override;
  void on_divergence(std::string_view field) override { next_.on_divergence(field); }

 private:
  scheduler::StepObserver& next_;
  spdlog::logger& logger_;
  scheduler::QueueRecord last_queue_;
};

}  // namespace lockstep::daemon
