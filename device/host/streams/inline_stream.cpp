#include "device/host/streams/inline_stream.hpp"

#include <utility>

#include "device/host/streams/host_event.hpp"
#include "device/host/streams/host_stream.hpp"

namespace lockstep::device::host {

void InlineStream::enqueue(Task task) {
  timeline_->submit();
  run_task(task, *timeline_, name_);
  timeline_->complete();
}

void InlineStream::record(Event& event) {
  static_cast<HostEvent&>(event).set({timeline_, timeline_->submitted()});
}

void InlineStream::wait_for(Event& event) {
  const TimelinePoint awaited = static_cast<HostEvent&>(event).get();
  if (awaited.timeline == nullptr || awaited.timeline == timeline_) {
    return;
  }
  // Ends at the latest when the other stream is destroyed, which fires its events.
  awaited.timeline->wait(awaited.point, std::stop_token{});
  timeline_->submit();
  if (Status seen = awaited.timeline->status_at(awaited.point); !seen) {
    timeline_->fail(std::move(seen).error());
  }
  timeline_->complete();
}

Status InlineStream::synchronize(const Deadline& /*deadline*/) {
  return timeline_->clear_failure();
}

}  // namespace lockstep::device::host
