// One CUDA device as a Device.
#pragma once

#include <memory>

#include "lockstep/device/device.hpp"

namespace lockstep::device::cuda {

/// Whether a rank with these options would find a device.      Errors  kUnsupported: no driver, no device, too few.
[[nodiscard]] Status probe_cuda_device(const DeviceOptions& options);

/// Errors  as probe_cuda_device; kUnsupported: another rank has the device; kInternal: CUDA's.
[[nodiscard]] Result<std::unique_ptr<Device>> create_cuda_device(const DeviceOptions& options);

}  // namespace lockstep::device::cuda
