// Streams of the simulated runtime: each is a thread, and a gate before each piece of its work says when it may begin.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "tests/cuda_sim/runtime/settings.hpp"

namespace cuda_sim {

class SimStream;

/// One piece of work of a stream. All but the first four members are the scheduler's, under its lock.
struct Operation {
  std::string label;                              ///< for complaints
  std::function<void()> run;                      ///< none: it only stands for a point
  std::shared_ptr<Operation> awaits;              ///< what has to be done first in another stream; null: nothing
  bool calls_host = false;                        ///< it runs code of the host, which may wait for the thread that enqueued it
  std::vector<std::weak_ptr<Operation>> opens{};  ///< earlier work that it waits for by itself, once it runs: that may begin when it may
  SimStream* stream = nullptr;
  bool open = false;  ///< it may begin
  int ticks = 0;      ///< calls of the runtime until it opens by itself; 0: not by itself
  bool done = false;
  std::chrono::steady_clock::time_point done_at{};
  bool asked = false;    ///< the host has asked for it when it was not done
  bool skipped = false;  ///< a test has taken the host's wait for it away
};

class SimStream {
 public:
  SimStream(int device, unsigned flags, int priority) : device(device), flags(flags), priority(priority) {}
  const int device;
  const unsigned flags;
  const int priority;

 private:
  friend class Scheduler;
  std::deque<std::shared_ptr<Operation>> queue_;
  std::shared_ptr<Operation> last_;  ///< the newest ever enqueued
  bool closing_ = false;
  bool lags_ = false;  ///< on the schedule random: its work is held back far longer than that of others
};

/// All streams of the process.      Threads  safe.      Ownership  never destroyed: stream threads may outlive main.
class Scheduler {
 public:
  static Scheduler& instance();

  [[nodiscard]] std::shared_ptr<SimStream> make_stream(int device, unsigned flags, int priority);
  /// The stream's work still runs; nothing can be enqueued any more.
  void close(const std::shared_ptr<SimStream>& stream);

  std::shared_ptr<Operation> enqueue(SimStream& stream, Operation operation);
  /// The newest work of the stream; null: there was none.
  [[nodiscard]] std::shared_ptr<Operation> last(SimStream& stream);
  /// The newest work of all streams.
  [[nodiscard]] std::vector<std::shared_ptr<Operation>> all_last();
  /// Blocks until the work is done, which opens it and all that it needs. Null: nothing to wait for.
  void wait(const std::shared_ptr<Operation>& operation);
  /// Whether it is done. Where not, it is opened: who asks wants to know, and may ask until it is.
  [[nodiscard]] bool query(const std::shared_ptr<Operation>& operation);
  /// The same without asking: nothing is opened, and no wait counted.
  [[nodiscard]] bool is_done(const Operation& operation);
  /// When it was done; it is.
  [[nodiscard]] std::chrono::steady_clock::time_point done_at(const Operation& operation);
  /// Another schedule from here on, for work enqueued from now.
  void set_schedule(SchedulePolicy policy, std::uint64_t seed);
  /// How often the host had to wait: each piece of work counts once, when it is first asked for and not done.
  [[nodiscard]] std::uint64_t host_waits();
  /// Takes away the host's wait number `ordinal`, counted from 1 from now on: the runtime says that the work is done, and does nothing. 0: none.
  void skip_host_wait(std::uint64_t ordinal);
  /// Counts a stream's wait for an event; false: a test has taken it away.
  [[nodiscard]] bool keeps_event_wait();
  [[nodiscard]] std::uint64_t event_waits();
  /// Takes away the wait of a stream for an event, number `ordinal`, counted from 1 from now on. 0: none.
  void skip_event_wait(std::uint64_t ordinal);
  /// A seed for one launch, from the schedule's.
  [[nodiscard]] std::uint64_t draw_seed();
  /// One of `choices`: the first on the schedule early, the last on late, drawn on random.
  [[nodiscard]] unsigned draw(unsigned choices);

 private:
  /// One stream of so many lags, on the average.
  static constexpr std::uint64_t kLagsOneOf = 3;

  Scheduler() : policy_(settings().policy), random_(settings().seed) {}
  void serve(const std::shared_ptr<SimStream>& stream);
  void open_all_needed(Operation& operation);
  /// One call of the runtime more.
  void tick();
  /// Whether the host may go on without it: it is done, or the wait for it is taken away. Under the lock.
  bool may_pass(Operation& operation);
  void choose_gate(Operation& operation, bool& waits);
  /// Whether a stream lags. Under the lock.
  [[nodiscard]] bool draw_lag() { return policy_ == SchedulePolicy::kRandom && random_() % kLagsOneOf == 0; }

  std::mutex mutex_;
  std::condition_variable changed_;
  SchedulePolicy policy_;
  std::mt19937_64 random_;
  std::vector<std::weak_ptr<SimStream>> streams_;
  std::uint64_t host_waits_ = 0;
  std::uint64_t skipped_wait_ = 0;  ///< of host_waits_; 0: none
  std::uint64_t event_waits_ = 0;
  std::uint64_t skipped_event_wait_ = 0;  ///< of event_waits_; 0: none
  int host_calls_pending_ = 0;            ///< operations that call the host and are not done
};

}  // namespace cuda_sim
