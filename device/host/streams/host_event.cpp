#include "device/host/streams/host_event.hpp"

#include <utility>

namespace lockstep::device::host {

bool HostEvent::query() const {
  const TimelinePoint at = get();
  return at.timeline == nullptr || at.timeline->reached(at.point);
}

Status HostEvent::wait(const Deadline& deadline) {
  const TimelinePoint at = get();
  if (at.timeline == nullptr) {
    return {};
  }
  LOCKSTEP_RETURN_IF_ERROR(at.timeline->wait(at.point, deadline));
  return at.timeline->status_at(at.point);
}

bool HostEvent::reached_within(Duration limit) {
  const TimelinePoint at = get();
  return at.timeline == nullptr || at.timeline->reached_within(at.point, limit);
}

void HostEvent::set(TimelinePoint point) {
  const std::scoped_lock lock(mutex_);
  // The old point leaves with the argument, after the lock: it may be the last owner of a timeline.
  std::swap(point_, point);
}

TimelinePoint HostEvent::get() const {
  const std::scoped_lock lock(mutex_);
  return point_;
}

}  // namespace lockstep::device::host
