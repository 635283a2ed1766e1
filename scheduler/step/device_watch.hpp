// DeviceWatch: what may end a wait for a device.
#pragma once

#include "lockstep/comm/device_messages.hpp"
#include "lockstep/core/deadline.hpp"

namespace lockstep::scheduler {

/// What may end a wait for a device's stream: the group's watch, and messages on their way that have failed.      Threads  the step thread's.
class DeviceWatch final : public Watch {
 public:
  DeviceWatch(const Watch* group, comm::DeviceMessages* messages) : group_(group), messages_(messages) {}
  [[nodiscard]] Status failure() const override {
    if (group_ != nullptr) {
      LOCKSTEP_RETURN_IF_ERROR(group_->failure());
    }
    return messages_ == nullptr ? Status{} : messages_->check();
  }
  [[nodiscard]] TimePoint last_progress() const override { return group_ == nullptr ? TimePoint{} : group_->last_progress(); }

 private:
  const Watch* group_;              ///< null: nobody watches
  comm::DeviceMessages* messages_;  ///< null: there are none
};

}  // namespace lockstep::scheduler
