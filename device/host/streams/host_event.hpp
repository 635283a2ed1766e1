// Events of the host device: a point on the timeline of the stream that recorded it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "device/host/streams/timeline.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::device::host {

/// Where a stream was when an event was recorded.
struct TimelinePoint {
  std::shared_ptr<Timeline> timeline;  ///< shared with the stream; null: never recorded, and so reached
  std::uint64_t point = 0;
};

class HostEvent final : public Event {
 public:
  [[nodiscard]] bool query() const override;
  [[nodiscard]] Status wait(const Deadline& deadline) override;
  [[nodiscard]] bool reached_within(Duration limit) override;

  void set(TimelinePoint point);
  /// What a wait enqueued now waits for: recording the event again later does not change that.
  [[nodiscard]] TimelinePoint get() const;

 private:
  mutable std::mutex mutex_;
  TimelinePoint point_;
};

}  // namespace lockstep::device::host
