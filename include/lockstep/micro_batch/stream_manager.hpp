// StreamManager: the compute and communication streams that micro-batches share.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "lockstep/core/deadline.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep {

/// What a stream is for.
enum class StreamType { kCompute, kCommunication, kDefault, kHighPriority };
[[nodiscard]] std::string_view stream_type_name(StreamType type);

/// How a manager picks one of its streams.
enum class StreamPolicy {
  round_robin,   ///< each in turn
  least_loaded,  ///< the one with the least outstanding estimated work; the first of several
};

/// A stream with what it is for. Unlike a bare stream, it may be used by several threads at once.
/// Ownership  its stream.      Threads  any; a task must not enqueue on, or synchronize, the handle that it runs on.
class StreamHandle {
 public:
  /// `all_run` is an event of the stream's device, for `synchronize`.
  StreamHandle(std::unique_ptr<device::Stream> stream, StreamType type, int priority, std::unique_ptr<device::Event> all_run)
      : stream_(std::move(stream)), type_(type), priority_(priority), all_run_(std::move(all_run)) {}
  StreamHandle(const StreamHandle&) = delete;
  StreamHandle& operator=(const StreamHandle&) = delete;

  [[nodiscard]] StreamType type() const { return type_; }
  /// Lower is more urgent, as in CUDA. Host streams carry it only as a label: a process may not raise its own threads' priority.
  [[nodiscard]] int priority() const { return priority_; }
  [[nodiscard]] std::string_view name() const { return stream_->name(); }
  /// For ops that launch on a stream. Its own functions take one thread at a time.
  [[nodiscard]] device::Stream& stream() { return *stream_; }

  /// Runs `callable`, a `Status()`, after what was enqueued before, under the enqueuer's ForwardContext.
  /// `estimated_work` counts as outstanding until it has run or was skipped. Unit: the caller's, the same on all streams of a manager (rows, microseconds).
  /// Cost    no allocation; a callable larger than device::Task's capacity less 16 bytes does not compile.
  template <typename F>
  void enqueue(F&& callable, std::int64_t estimated_work = 1) {
    Counted<std::decay_t<F>> counted{std::forward<F>(callable), Outstanding(*this, estimated_work)};
    enqueue_task(device::Task(std::move(counted)));
  }
  /// Blocks until everything enqueued has run, also what others enqueue meanwhile.      Errors  the deadline's; the first error of a task, which is cleared:
  /// later work runs again.
  [[nodiscard]] Status synchronize(const Deadline& deadline = Deadline::after(Duration::max()));
  void record_event(device::Event& event);
  /// Later work of this stream starts only after `event`'s last record.
  void wait_event(device::Event& event);

  /// Estimated work enqueued and not yet run, and that of open stream contexts.
  [[nodiscard]] std::int64_t outstanding_work() const { return outstanding_work_.load(std::memory_order_relaxed); }
  /// How many tasks were ever enqueued.
  [[nodiscard]] std::uint64_t enqueued_count() const { return enqueued_count_.load(std::memory_order_relaxed); }

  /// Counts work as outstanding while it lives. Also in a task that never runs: it is destroyed with it.
  class Outstanding {
   public:
    Outstanding(StreamHandle& handle, std::int64_t work) : handle_(&handle), work_(work) { handle.outstanding_work_.fetch_add(work); }
    Outstanding(Outstanding&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)), work_(other.work_) {}
    Outstanding& operator=(Outstanding&&) = delete;
    Outstanding(const Outstanding&) = delete;
    Outstanding& operator=(const Outstanding&) = delete;
    ~Outstanding() {
      if (handle_ != nullptr) {
        handle_->outstanding_work_.fetch_sub(work_);
      }
    }

   private:
    StreamHandle* handle_;
    std::int64_t work_;
  };

 private:
  template <typename F>
  struct Counted {
    F callable;
    Outstanding outstanding;
    Status operator()() { return callable(); }
  };
  void enqueue_task(device::Task task);

  // The count outlives the stream, whose destructor drops tasks that refer to it.
  std::atomic<std::int64_t> outstanding_work_ = 0;
  std::atomic<std::uint64_t> enqueued_count_ = 0;
  std::mutex mutex_;               ///< a Stream takes one thread at a time
  std::uint64_t changes_ = 0;      ///< tasks and waits enqueued here; under the lock
  std::uint64_t changes_run_ = 0;  ///< of these, what `synchronize` knows to have run
  std::unique_ptr<device::Stream> stream_;
  StreamType type_;
  int priority_;
  std::unique_ptr<device::Event> all_run_;  ///< recorded under the lock, waited for without it
};

struct StreamManagerOptions {
  int num_compute_streams = 2;
  int num_comm_streams = 2;
  bool use_high_priority = false;  ///< compute streams are kHighPriority, priority -1
  bool inline_streams = false;     ///< no threads: a task runs inside `enqueue`
};

/// Two pools of streams.
/// Ownership  its streams, and the host device where none is given; a given device outlives it. The destructor runs what was enqueued to its end.
/// Threads    any.      Errors  the constructor throws std::invalid_argument: fewer than 1 stream of a kind; std::runtime_error: the device has no more.
class StreamManager {
 public:
  explicit StreamManager(const StreamManagerOptions& options = {}, device::Device* device = nullptr);
  ~StreamManager();
  StreamManager(const StreamManager&) = delete;
  StreamManager& operator=(const StreamManager&) = delete;

  [[nodiscard]] StreamHandle& get_compute_stream(StreamPolicy policy = StreamPolicy::round_robin) { return pick(compute_, next_compute_, policy); }
  [[nodiscard]] StreamHandle& get_comm_stream(StreamPolicy policy = StreamPolicy::round_robin) { return pick(comm_, next_comm_, policy); }
  [[nodiscard]] StreamHandle& compute_stream(std::size_t index) { return *compute_.at(index); }
  [[nodiscard]] StreamHandle& comm_stream(std::size_t index) { return *comm_.at(index); }
  [[nodiscard]] std::size_t num_compute_streams() const { return compute_.size(); }
  [[nodiscard]] std::size_t num_comm_streams() const { return comm_.size(); }
  [[nodiscard]] std::unique_ptr<device::Event> make_event() { return device_->make_event(); }
  /// Waits for all streams, also after an error.      Errors  the first of them.
  [[nodiscard]] Status synchronize_all(const Deadline& deadline = Deadline::after(Duration::max()));

  /// A stream for the length of a scope: `auto compute = manager.compute_context(); compute->enqueue(...);` It does not synchronize.
  class [[nodiscard]] StreamContext {
   public:
    StreamContext(StreamHandle& handle, std::int64_t estimated_work) : handle_(&handle), outstanding_(handle, estimated_work) {}
    [[nodiscard]] StreamHandle& operator*() const { return *handle_; }
    [[nodiscard]] StreamHandle* operator->() const { return handle_; }

   private:
    StreamHandle* handle_;
    StreamHandle::Outstanding outstanding_;
  };
  /// `estimated_work` counts as the stream's until the scope ends, so that the next `least_loaded` choice sees it before anything is enqueued.
  StreamContext compute_context(StreamPolicy policy = StreamPolicy::round_robin, std::int64_t estimated_work = 0) {
    return {get_compute_stream(policy), estimated_work};
  }
  StreamContext comm_context(StreamPolicy policy = StreamPolicy::round_robin, std::int64_t estimated_work = 0) {
    return {get_comm_stream(policy), estimated_work};
  }

 private:
  using Pool = std::vector<std::unique_ptr<StreamHandle>>;
  [[nodiscard]] Pool make_pool(int count, std::string_view name, StreamType type, int priority, bool inline_streams);
  [[nodiscard]] static StreamHandle& pick(Pool& pool, std::atomic<std::size_t>& next, StreamPolicy policy);

  std::unique_ptr<device::Device> own_device_;
  device::Device* device_;
  Pool compute_;
  Pool comm_;
  std::atomic<std::size_t> next_compute_ = 0;
  std::atomic<std::size_t> next_comm_ = 0;
};

}  // namespace lockstep
