// The host as a device: threads as streams, ordinary memory, oneDNN and our own kernels.
#pragma once

#include <memory>

#include "lockstep/device/device.hpp"

namespace lockstep::device::host {

[[nodiscard]] Result<std::unique_ptr<Device>> make_host_device(const DeviceOptions& options);

}  // namespace lockstep::device::host
