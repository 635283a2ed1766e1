// BodyReader: reads large request bodies on a worker thread.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>

#include "lockstep/core/result.hpp"

namespace boost::asio {
class io_context;
}

namespace lockstep::daemon {

/// One body that waits for its turn.      Threads  the Asio thread.
class BodyRead {
 public:
  explicit BodyRead(std::shared_ptr<std::atomic<bool>> taken) : taken_(std::move(taken)) {}
  /// Nobody wants it any more. True when its work has not begun, and never will: what it would have used may go.
  bool cancel() const { return !taken_->exchange(true); }

 private:
  std::shared_ptr<std::atomic<bool>> taken_;  // by the worker thread, to do the work, or by `cancel`
};

/// An AsyncMicrobatcher on one thread: a body that comes alone is read at once, those that come meanwhile are read together, and waiting ones are bounded.
/// Each service has one of its own: behind a common queue, large bodies of one kind of request would hold up those of all others.
/// Ownership  borrows the io_context; owns the thread. The destructor waits for what is being read, and drops the rest.
/// Threads    the Asio thread.
class BodyReader {
 public:
  [[nodiscard]] static std::unique_ptr<BodyReader> create(boost::asio::io_context& io);
  virtual ~BodyReader() = default;
  BodyReader(const BodyReader&) = delete;
  BodyReader& operator=(const BodyReader&) = delete;

  using Work = std::function<void()>;
  using Done = std::function<void(std::optional<Error> error)>;
  /// Runs `work` on the worker thread, then `done` on the Asio thread, once; what both use must be shared by them.
  /// `error`   kResourceExhausted: too many wait; kCancelled: it was cancelled before its turn; kInternal: `work` threw. Then `work` has no result.
  virtual BodyRead read(Work work, Done done) = 0;

 protected:
  BodyReader() = default;
};

}  // namespace lockstep::daemon
