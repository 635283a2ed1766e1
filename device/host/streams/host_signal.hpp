// HostSignal: a timeline whose work is done elsewhere, one piece for each time that it is armed.
#pragma once

#include <memory>

#include "device/host/streams/host_event.hpp"
#include "device/host/streams/timeline.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::device::host {

class HostSignal final : public Signal {
 public:
  explicit HostSignal(int spin_rounds) : timeline_(std::make_shared<Timeline>(spin_rounds)) {}
  /// Whoever still waits goes on, with kCancelled.
  ~HostSignal() override;

  void arm() override;
  void fire(Status status) override;
  [[nodiscard]] Event& event() override { return event_; }

 private:
  const std::shared_ptr<Timeline> timeline_;  ///< shared with the event, and with waits that were enqueued
  HostEvent event_;
};

}  // namespace lockstep::device::host
