// HostStream: a stream that is a thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "device/host/streams/host_event.hpp"
#include "device/host/streams/timeline.hpp"
#include "lockstep/device/stream.hpp"
#include "lockstep/forward_context.hpp"

namespace lockstep::device::host {

/// Runs a task under the sticky-error rule of streams: skipped after a failure; what it returns or throws becomes the failure.
void run_task(Task& task, Timeline& timeline, std::string_view stream_name);

/// Ownership  its thread. The destructor waits for the task that is running, drops the others, and fires their events with kCancelled: tasks that have not
///            run may refer to what their owner destroys next.
class HostStream final : public Stream {
 public:
  /// How much may be enqueued and not yet run; a step has a few entries per layer and stage.
  static constexpr std::size_t kCapacity = 256;

  /// Errors  kResourceExhausted: no thread.
  [[nodiscard]] static Result<std::unique_ptr<Stream>> create(std::string_view name, int spin_rounds);
  ~HostStream() override;

  void enqueue(Task task) override;
  void record(Event& event) override;
  void wait_for(Event& event) override;
  [[nodiscard]] Status synchronize(const Deadline& deadline) override;
  [[nodiscard]] std::string_view name() const override { return name_; }

 private:
  /// A task, or a wait for a point.
  struct Entry {
    Task task;
    const ForwardContext* context = nullptr;  ///< the enqueuer's
    TimelinePoint awaited;
  };

  HostStream(std::string_view name, int spin_rounds);
  void push(Entry entry);
  void run(const std::stop_token& stop);
  /// False: the stream is being destroyed, and a wait was broken off.
  bool run_entry(Entry& entry, const std::stop_token& stop);

  const std::string name_;
  const std::shared_ptr<Timeline> timeline_;  ///< shared with the events recorded here
  /// [kCapacity]; entry n is in slot n % kCapacity. The timeline's counters say whose turn a slot is: the enqueuer's until submitted, then the thread's until
  /// completed; so the slots need no lock.
  std::vector<Entry> ring_;
  std::jthread thread_;  ///< last: it uses all of the above
};

}  // namespace lockstep::device::host
