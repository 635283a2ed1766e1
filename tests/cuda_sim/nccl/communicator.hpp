// One rank's end of a simulated communicator: its connection to the hub, its states, and the launches that its device runs.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/cuda_sim/hooks/hooks.hpp"
#include "tests/cuda_sim/nccl/calls.hpp"
#include "tests/cuda_sim/nccl/launch.hpp"

namespace nccl_sim {

/// Threads  the host's calls: one at a time, as NCCL asks for; streams and the hub's messages besides.
class Communicator : public std::enable_shared_from_this<Communicator> {
 public:
  Communicator(Greeting greeting, bool blocking) : greeting_(greeting), blocking_(blocking) {}
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  /// Connects to the hub at `address`; `is_ready` says when all ranks have.
  void connect(const std::string& address);
  [[nodiscard]] bool is_blocking() const { return blocking_; }
  [[nodiscard]] int rank() const { return greeting_.rank; }
  [[nodiscard]] int ranks() const { return greeting_.ranks; }
  [[nodiscard]] int device() const { return greeting_.device; }

  /// ncclCommGetAsyncError's answer. While something is in progress each question brings it on: the answer does not change by itself.
  [[nodiscard]] ncclResult_t poll();
  /// The state without bringing anything on.
  [[nodiscard]] ncclResult_t state();
  /// Until nothing is in progress.
  [[nodiscard]] ncclResult_t wait_until_done();
  [[nodiscard]] const char* last_error();
  void note(const std::string& why);

  /// Puts a fused launch on the stream, now or at a later poll.
  [[nodiscard]] ncclResult_t launch(std::vector<LocalCall> calls, cudaStream_t stream);
  [[nodiscard]] ncclResult_t finalize();
  /// Ends what the device runs, and the connection, and waits for the end of all graphs that hold its calls. Everything that is still on streams does nothing
  /// from now on. `by` is the call that does it.
  void abort(const char* by);
  [[nodiscard]] bool is_in_graphs();
  [[nodiscard]] ncclResult_t shrink(const std::vector<std::int32_t>& excluded, bool abort_running, std::shared_ptr<Communicator>* made, bool blocking);

  /// A launch, on its stream's thread. `queue` is the one that it took its place in; null: it has none.
  void run(const std::vector<LocalCall>& calls, LaunchQueue* queue, std::uint64_t place);

 private:
  enum class Phase { kConnecting, kReady, kLaunching, kFinalizing, kFinalized, kShrinking };

  void listen();
  void handle(const Message& message);
  void lose(int rank, const std::string& why);
  [[nodiscard]] ncclResult_t advance(std::unique_lock<std::mutex>& lock);
  [[nodiscard]] ncclResult_t enqueue_launch(std::vector<LocalCall> calls, cudaStream_t stream);
  /// What a capture of these calls needs: their number, and that NCCL could prepare for them.
  [[nodiscard]] ncclResult_t number_captured(std::vector<LocalCall>& calls, const cuda_sim::CaptureState& capture);
  /// Violation where it has ended.
  void check_launchable(const Call& call);
  /// Where a launch takes its place; null: in no order.
  [[nodiscard]] LaunchQueue* queue_of(bool by_graph);
  /// Kept by each graph that holds calls: there is an end of this communicator only after theirs.
  [[nodiscard]] std::shared_ptr<void> hold();
  void stop_running(std::unique_lock<std::mutex>& lock);

  const Greeting greeting_;
  const bool blocking_;
  std::string address_;
  int socket_ = -1;
  std::thread listener_;

  std::mutex mutex_;
  std::condition_variable changed_;
  Phase phase_ = Phase::kConnecting;
  bool arrived_ = false;  ///< what the phase waits for from the hub
  int polls_left_ = 0;    ///< questions until the phase may end
  ncclResult_t error_ = ncclSuccess;
  std::string last_error_;
  bool stopped_ = false;  ///< what runs on the device ends without a result
  int running_ = 0;
  int graphs_ = 0;                                        ///< holds of captured calls
  const char* ended_ = nullptr;                           ///< the call after which no graph of it may be launched
  std::map<unsigned long long, std::uint64_t> captures_;  ///< numbers, by the runtime's id
  std::set<int> connected_;                               ///< peers that pairs have gone to or come from
  LaunchQueue queue_;
  std::optional<Bytes> result_;
  std::function<ncclResult_t()> deferred_;  ///< the launch that is in progress
  std::shared_ptr<Communicator> shrunk_;
  std::shared_ptr<Communicator>* shrunk_to_ = nullptr;
};

}  // namespace nccl_sim
