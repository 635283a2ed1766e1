// StepMetrics: what the engine tells about steps and requests, as metrics. Private to this folder.
#pragma once

#include <array>
#include <string_view>
#include <vector>

#include "daemon/metrics/atomic_table.hpp"
#include "lockstep/scheduler/step_observer.hpp"

namespace lockstep::daemon {

/// Ownership  borrows the table.      Threads  the step thread writes, any thread reads through the table. No lock and no allocation after construction.
class StepMetrics final : public scheduler::StepObserver {
 public:
  StepMetrics(AtomicTable& table, std::string_view transport, int world_size);
  /// What carries the agreement, once it is known. Not beside a Collect of the table.
  void set_agreement_transport(AtomicTable& table, std::string_view transport) { table.set_label(agreement_seconds_, "transport", transport); }
  void on_step(const scheduler::StepRecord& record) override;
  void on_queue(const scheduler::QueueRecord& record) override;
  void on_first_token(Duration since_arrival) override;
  void on_inter_token(Duration since_last_token) override;
  void on_request_finished(const scheduler::RequestRecord& record) override;
  void on_divergence(std::string_view field) override;

 private:
  /// Series of what has labels.
  void add_steps(AtomicTable& table);
  void add_exchanges(AtomicTable& table);
  void note_step_time();
  void count_group(const scheduler::StepRecord& record);

  static constexpr std::size_t kKinds = 4;
  static constexpr std::size_t kReasons = 5;
  static constexpr std::array<std::string_view, 4> kGuards{"step", "epoch", "config_hash", "checksum"};

  std::array<AtomicNumber*, kKinds> steps_{};
  std::array<AtomicHistogram*, kKinds> step_seconds_{};
  std::array<AtomicHistogram*, kKinds> step_tokens_{};
  std::array<AtomicNumber*, kReasons> finished_{};
  std::array<AtomicNumber*, kGuards.size() + 1> mismatches_{};  ///< the last is every other field
  AtomicNumber& last_step_;
  AtomicHistogram& agreement_seconds_;
  AtomicNumber& agreement_wait_seconds_;
  std::vector<AtomicNumber*> late_;                  ///< [world_size], by rank
  std::array<AtomicNumber*, 2> dispatch_seconds_{};  ///< hidden, exposed
  std::array<AtomicNumber*, 2> combine_seconds_{};
  AtomicNumber& core_lost_seconds_;
  AtomicNumber& balance_;
  AtomicNumber& kv_balance_;
  std::array<std::array<AtomicNumber*, scheduler::kMicroBatchReasonCount>, 2> micro_batch_steps_{};  ///< whole, split; by MicroBatchReason
  std::array<AtomicNumber*, 3> graph_steps_{};                                                       ///< by GraphMode
  AtomicNumber& wire_bytes_;
  AtomicNumber& crossed_rows_;
  AtomicNumber& dropped_rows_;
  AtomicNumber& prompt_tokens_;
  AtomicNumber& generated_tokens_;
  AtomicNumber& running_;
  AtomicNumber& waiting_;
  AtomicNumber& preemptions_;
  AtomicNumber& kv_ratio_;
  AtomicNumber& kv_used_;
  AtomicNumber& kv_free_;
  AtomicHistogram& first_token_seconds_;
  AtomicHistogram& inter_token_seconds_;
  AtomicHistogram& queue_seconds_;
  AtomicHistogram& request_seconds_;
};

}  // namespace lockstep::daemon
