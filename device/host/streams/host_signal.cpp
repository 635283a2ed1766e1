#include "device/host/streams/host_signal.hpp"

#include <utility>

#include "lockstep/core/check.hpp"

namespace lockstep::device::host {

HostSignal::~HostSignal() {
  timeline_->abandon("signal");
}

void HostSignal::arm() {
  if (timeline_->failed() && timeline_->reached(timeline_->submitted())) {
    static_cast<void>(timeline_->clear_failure());  // of an earlier use; its waiters were told
  }
  timeline_->submit();
  event_.set({timeline_, timeline_->submitted()});
}

void HostSignal::fire(Status status) {
  LOCKSTEP_CHECK(!timeline_->reached(timeline_->submitted()), "a signal was fired {} times, and armed no more often", timeline_->submitted() + 1);
  if (!status) {
    timeline_->fail(std::move(status).error());
  }
  timeline_->complete();
}

}  // namespace lockstep::device::host
