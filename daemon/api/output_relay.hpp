// OutputRelay: carries the engine's tokens from the step thread to the Asio thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "lockstep/scheduler/request.hpp"

namespace lockstep::daemon {

/// A TokenEvent that owns its error.
struct RelayedEvent {
  scheduler::RequestId request = 0;
  std::int32_t token = -1;
  bool of_prompt = false;
  float log_probability = 0.0F;
  std::span<const model::TokenLogProbability> likeliest{};  ///< valid while the consumer runs
  std::optional<scheduler::FinishReason> finish{};
  std::vector<float> embedding{};
  std::optional<Error> error{};
};

/// Two buffers that change places, and one wake of the Asio thread however many events wait.
/// The wake is an eventfd that is written to without a lock held. Asio's post holds one while it wakes: the woken thread, which takes the core at once, then
/// runs into that lock, sleeps again, and has lost its turn for up to a timer tick (4 ms, docs/decisions/0028). Where no descriptor is left, post it is.
/// Consequence   what is posted after a `deliver` may run before the consumer sees those events.
/// Bound      open requests × their tokens: the engine makes no more, and refuses requests beyond max_pending.
/// Ownership  borrows the io_context; the step thread has ended before this object does.      Threads  `deliver` the step thread; the consumer is called on the
/// Asio thread.
class OutputRelay final : public scheduler::OutputSink {
 public:
  using Consumer = std::function<void(std::span<const RelayedEvent>)>;
  OutputRelay(boost::asio::io_context& io, Consumer consumer);
  void deliver(std::span<const scheduler::TokenEvent> events) override;

 private:
  /// Events, and in their order what their `likeliest` point at once all are in: before, the memory may move.
  struct Buffer {
    std::vector<RelayedEvent> events;
    std::vector<std::size_t> likeliest_counts;  ///< [events]
    std::vector<model::TokenLogProbability> likeliest;
  };
  void ring();
  void wait_for_bell();
  void consume();

  boost::asio::io_context& io_;
  Consumer consumer_;
  boost::asio::posix::stream_descriptor bell_;
  int bell_descriptor_;  ///< that of bell_, for the step thread; negative: there is none
  std::mutex mutex_;
  Buffer filling_;             // guarded by mutex_
  bool wake_pending_ = false;  // guarded by mutex_
  Buffer draining_;
};

}  // namespace lockstep::daemon
