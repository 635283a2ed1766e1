// Which device a rank takes, and that no other rank has it.
#pragma once

#include <memory>
#include <string>

#include "lockstep/core/result.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::device::cuda {

/// Of `device_count` visible devices (CUDA_VISIBLE_DEVICES says which these are) the one with the rank's local number. One device is every rank's first: a
/// launcher that shows each rank its own does so.
/// Errors  kUnsupported: more ranks than devices, and sharing is not allowed.
[[nodiscard]] Result<int> choose_device_index(const DeviceOptions& options, int device_count);

/// A device that this process has for itself: other processes' claims of it fail while this one lives, however it ends.
/// It is a Unix socket's abstract name, so it holds among the processes of one network namespace: containers do not see each other's.
class DeviceClaim {
 public:
  /// `identity` names the device on its host: the PCI bus id.
  /// Errors  kUnsupported: another rank has it.
  [[nodiscard]] static Result<std::unique_ptr<DeviceClaim>> create(const std::string& identity);
  ~DeviceClaim();
  DeviceClaim(const DeviceClaim&) = delete;
  DeviceClaim& operator=(const DeviceClaim&) = delete;

 private:
  explicit DeviceClaim(int socket) : socket_(socket) {}
  const int socket_;
};

}  // namespace lockstep::device::cuda
