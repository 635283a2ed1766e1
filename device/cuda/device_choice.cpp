#include "device/cuda/device_choice.hpp"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <sys/socket.h>
#include <sys/un.h>
#include <system_error>
#include <unistd.h>

#include <fmt/format.h>

namespace lockstep::device::cuda {

Result<int> choose_device_index(const DeviceOptions& options, int device_count) {
  if (device_count < 1) {
    return Error{ErrorCode::kUnsupported, "CUDA shows no device"};
  }
  if (device_count > 1 && options.local_rank >= device_count && !options.share_device) {
    return Error{ErrorCode::kUnsupported, fmt::format("this is rank {} of {} on this host, and CUDA shows {} devices: start at most one rank a device",
                                                      options.local_rank, options.local_size, device_count)};
  }
  return options.local_rank % device_count;
}

Result<std::unique_ptr<DeviceClaim>> DeviceClaim::create(const std::string& identity) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = "lockstep-cuda-" + identity;
  const std::size_t length = std::min(name.size(), sizeof address.sun_path - 1);
  std::memcpy(address.sun_path + 1, name.data(), length);  // the first byte stays 0: an abstract name, which ends with the process
  const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const auto address_bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  if (socket >= 0 && ::bind(socket, reinterpret_cast<const sockaddr*>(&address), address_bytes) == 0) {  // as the sockets API wants it
    return std::unique_ptr<DeviceClaim>(new DeviceClaim(socket));
  }
  const int reason = errno;
  if (socket >= 0) {
    ::close(socket);
  }
  if (reason == EADDRINUSE) {
    return Error{ErrorCode::kUnsupported, fmt::format("device {} is another rank's: start at most one rank a device", identity)};
  }
  return Error{ErrorCode::kInternal, fmt::format("cannot claim device {}: {}", identity, std::system_category().message(reason))};
}

DeviceClaim::~DeviceClaim() {
  ::close(socket_);
}

}  // namespace lockstep::device::cuda
