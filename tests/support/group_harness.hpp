// A whole group in one process: N engines as threads over LocalGroup, for tests and the bench.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "lockstep/comm/local_group.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/scheduler/engine.hpp"

namespace lockstep::tests {

/// What one request produced.
struct Completion {
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probabilities;
  std::vector<std::vector<model::TokenLogProbability>> likeliest;  ///< by token
  std::vector<std::int32_t> prompt_tokens;                         ///< that came back, each with its score in the next
  std::vector<float> prompt_log_probabilities;
  std::vector<std::vector<model::TokenLogProbability>> prompt_likeliest;
  std::vector<float> embedding;
  std::optional<scheduler::FinishReason> finish{};
  std::string error;
};

/// What one rank did, gathered from its observer.
struct RankCounters {
  std::int64_t steps = 0;
  std::int64_t running_steps = 0;
  std::int64_t split_steps = 0;  ///< with two non-empty micro-batches on this rank
  std::int32_t requests_in_step_max = 0;
  std::int32_t prefill_chunks_max = 0;  ///< of one finished request
  std::int64_t dropped_rows = 0;
  std::map<int, std::int64_t> late_steps;                                 ///< by the member that came last
  std::map<scheduler::MicroBatchReason, std::int64_t> micro_batch_steps;  ///< steps with work, by why they were split or not
  double kv_balance_min = 1.0;
  std::uint64_t crossed_rows = 0;
  std::uint64_t collectives = 0;
  std::uint64_t collective_hash = 0;  ///< over (kind, step, layer, micro-batch) in order
  scheduler::QueueRecord queue{};
};

struct GroupOptions {
  int world_size = 1;
  model::ModelConfig config;
  std::function<std::unique_ptr<model::WeightSource>()> make_weights;
  scheduler::EngineOptions engine;
  comm::LocalGroupHooks hooks{};
  /// Changes the options of one rank, to make a group that disagrees.
  std::function<void(int rank, scheduler::EngineOptions& options)> adjust{};
  /// Wraps one rank's communicator, to make a rank that misbehaves.
  std::function<std::unique_ptr<comm::Communicator>(int rank, std::unique_ptr<comm::Communicator> inner)> wrap{};
  /// Wraps the wakes, to delay or reorder them; gets the sender's rank and what delivers the wake to one receiver.
  std::function<void(int from, int to, std::function<void()> deliver)> carry_wake{};
};

/// Starts on construction; the destructor drains and joins.      Threads  any, one at a time.
class GroupHarness {
 public:
  explicit GroupHarness(GroupOptions options);
  ~GroupHarness();
  GroupHarness(const GroupHarness&) = delete;
  GroupHarness& operator=(const GroupHarness&) = delete;

  /// Blocks until every rank's engine runs, or one has failed.
  void wait_until_running();
  [[nodiscard]] Status submit(int rank, scheduler::GenerationRequest request);
  void cancel(int rank, scheduler::RequestId id);
  /// Blocks until request `id` has ended; a bounded wait that fails the test's process when it hangs.
  Completion wait(scheduler::RequestId id);
  /// The tokens so far.
  [[nodiscard]] std::size_t token_count(scheduler::RequestId id);
  /// Blocks until request `id` has at least `count` tokens or has ended.
  void wait_for_tokens(scheduler::RequestId id, std::size_t count);
  /// Blocks until the group has fallen asleep `times` more, as this rank sees it. From the second on it has slept through a whole keep-alive interval.
  void wait_for_sleeps(int rank, std::int64_t times);
  void drain(int rank);
  /// Blocks until every engine has left `run`; its statuses by rank.
  std::vector<Status> join();
  [[nodiscard]] RankCounters counters(int rank);
  [[nodiscard]] std::int64_t steps(int rank) { return counters(rank).steps; }
  [[nodiscard]] scheduler::Engine& engine(int rank);
  [[nodiscard]] comm::LocalGroup& local_group() { return local_group_; }

 private:
  struct Rank;
  void run_rank(Rank& rank);
  void wait_on(const std::function<bool()>& done, const std::string& what);

  GroupOptions options_;
  comm::LocalGroup local_group_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<scheduler::RequestId, Completion> completions_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

/// By rank: the group's own, or over it the one that LOCKSTEP_TEST_COMM names, for which each rank has a device. Made by all together: its start is collective.
[[nodiscard]] std::vector<std::unique_ptr<comm::Communicator>> make_communicators(comm::LocalGroup& group, int size);

/// "Sync" or "Pipelined": names a test's instance.
std::string agreement_name(scheduler::AgreementMode mode);

/// A small MoE with random weights; every field may be changed before use.
model::ModelConfig small_config();

/// A request with the given prompt greedy, with log probabilities, and everything else at its default.
scheduler::GenerationRequest greedy_request(scheduler::RequestId id, std::vector<std::int32_t> prompt, std::int32_t max_tokens);

}  // namespace lockstep::tests
