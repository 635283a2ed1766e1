// StreamTimes: when a device came to points of its streams, for who wants to see what it did.
#pragma once

#include <cstddef>

#include "lockstep/core/deadline.hpp"
#include "lockstep/core/result.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::device {

/// A fixed number of points, each to be marked as often as wanted: the last mark counts. They cost the device more than events, which carry no time.
/// Ownership  the device's form of the points; outlives the work that marks them.      Threads  as the streams that are marked.
class StreamTimes {
 public:
  virtual ~StreamTimes() = default;
  StreamTimes(const StreamTimes&) = delete;
  StreamTimes& operator=(const StreamTimes&) = delete;
  /// The moment when what was enqueued on `stream` so far has run; outside of captures. A failure becomes the stream's.      Cost  as Stream::record.
  virtual void mark(std::size_t point, Stream& stream) = 0;
  /// How long after `from` the device came to `to`, by its own clock; below 0 where it came there first.      Units  half a microsecond on CUDA.
  /// Errors  kInternal: one of them was never marked, or is not reached yet. Nobody is waited for.
  [[nodiscard]] virtual Result<Duration> between(std::size_t from, std::size_t to) const = 0;

 protected:
  StreamTimes() = default;
};

/// A point that is to be marked where a stream is; made of nothing, there is none.      Ownership  borrows the times.
class StreamMark {
 public:
  StreamMark() = default;
  StreamMark(StreamTimes& times, std::size_t point) : times_(&times), point_(point) {}
  void set(Stream& stream) const {
    if (times_ != nullptr) {
      times_->mark(point_, stream);
    }
  }

 private:
  StreamTimes* times_ = nullptr;
  std::size_t point_ = 0;
};

}  // namespace lockstep::device
