// Stream, Event and Task: ordered work, and the only way to order work between streams.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>

#include "lockstep/core/deadline.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::device {

/// A move-only callable `Status()` kept inline, so that enqueueing allocates nothing.
/// Errors  a callable larger than kCapacityBytes does not compile: capture a pointer to what you need.
class Task {
 public:
  static constexpr std::size_t kCapacityBytes = 64;

  Task() = default;
  template <typename F>
  requires(!std::is_same_v<std::decay_t<F>, Task> && std::is_invocable_r_v<Status, F&>) Task(F&& callable) {  // NOLINT: implicit by design
    using Stored = std::decay_t<F>;
    static_assert(sizeof(Stored) <= kCapacityBytes && alignof(Stored) <= alignof(std::max_align_t));
    static_assert(std::is_nothrow_move_constructible_v<Stored>);
    ::new (static_cast<void*>(storage_)) Stored(std::forward<F>(callable));
    operations_ = &kOperationsFor<Stored>;
  }
  Task(Task&& other) noexcept { take(other); }
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      reset();
      take(other);
    }
    return *this;
  }
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  ~Task() { reset(); }

  Status operator()() { return operations_->invoke(storage_); }
  explicit operator bool() const { return operations_ != nullptr; }

 private:
  struct Operations {
    Status (*invoke)(void* self);
    void (*move)(void* from, void* to);  ///< constructs `to`, destroys `from`
    void (*destroy)(void* self);
  };
  template <typename Stored>
  static constexpr Operations kOperationsFor{[](void* self) { return (*static_cast<Stored*>(self))(); },
                                             [](void* from, void* to) {
                                               ::new (to) Stored(std::move(*static_cast<Stored*>(from)));
                                               static_cast<Stored*>(from)->~Stored();
                                             },
                                             [](void* self) { static_cast<Stored*>(self)->~Stored(); }};

  void take(Task& other) {
    operations_ = std::exchange(other.operations_, nullptr);
    if (operations_ != nullptr) {
      operations_->move(other.storage_, storage_);
    }
  }
  void reset() {
    if (operations_ != nullptr) {
      std::exchange(operations_, nullptr)->destroy(storage_);
    }
  }

  const Operations* operations_ = nullptr;
  alignas(std::max_align_t) std::byte storage_[kCapacityBytes];
};

/// A point in a stream's order. Reusable: recording it again replaces the earlier point.
/// Ownership  made by Device::make_event; outlives every record and wait enqueued on it.      Threads  any.
class Event {
 public:
  virtual ~Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  /// True when everything enqueued before the last `record` has run; true for an event never recorded.
  [[nodiscard]] virtual bool query() const = 0;
  /// Blocks the calling thread until `query()`.
  /// Errors  the deadline's; the first error of the stream that recorded it.
  [[nodiscard]] virtual Status wait(const Deadline& deadline) = 0;
  /// Blocks until `query()` or until `limit` has passed, and says which. For who has something else to look after: no error to make, nothing allocated.
  [[nodiscard]] virtual bool reached_within(Duration limit) = 0;

 protected:
  Event() = default;
};

/// A point that the host fires instead of a stream: for what ends outside of all streams, such as an exchange whose messages have come.
/// May be armed several times ahead: each `fire` ends the oldest that is armed.
/// Ownership  made by Device::make_signal; outlives every wait enqueued on its event.      Threads  arm and fire: one; the event: any.
class Signal {
 public:
  virtual ~Signal() = default;
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;
  /// From now on a wait for `event()` is for the `fire` that answers this call; it has to come, or a stream waits for ever.
  virtual void arm() = 0;
  /// An error goes to the streams that wait for it and for all that are armed, until an `arm` with none left; those fires have to come all the same.
  virtual void fire(Status status) = 0;
  [[nodiscard]] virtual Event& event() = 0;

 protected:
  Signal() = default;
};

/// Work in order. After a task fails, later tasks are skipped, events still fire and carry the error to streams that wait for them,
/// and `synchronize` returns the first error and clears it: a failure never leaves a waiter behind.
/// Threads  enqueue, record, wait_for and synchronize: one thread at a time.
class Stream {
 public:
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  /// Runs `task` after what was enqueued before. A host stream runs it on its thread (an inline stream: now); a device stream calls it now, and the ops
  /// that it calls launch on the device's stream. The enqueuer's ForwardContext is current inside the task.
  /// Cost    no allocation; blocks when the queue (a fixed ring) is full.
  virtual void enqueue(Task task) = 0;
  virtual void record(Event& event) = 0;
  /// Later work of this stream starts only after `event`'s last record.
  virtual void wait_for(Event& event) = 0;
  /// Blocks until everything enqueued has run.
  [[nodiscard]] virtual Status synchronize(const Deadline& deadline) = 0;
  [[nodiscard]] virtual std::string_view name() const = 0;
  /// What other libraries of the device know the stream by: a cudaStream_t. Null on a host.
  [[nodiscard]] virtual void* native_handle() const { return nullptr; }

 protected:
  Stream() = default;
};

}  // namespace lockstep::device
