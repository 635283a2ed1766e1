#include "daemon/lifecycle/service_notifier.hpp"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace lockstep::daemon {
namespace {

std::optional<std::int64_t> read_number(const std::optional<std::string>& text) {
  std::int64_t value = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), value).ec != std::errc() || value <= 0) {
    return std::nullopt;
  }
  return value;
}

}  // namespace

ServiceNotifier::ServiceNotifier(const comm::EnvironmentReader& environment) {
  address_ = environment("NOTIFY_SOCKET").value_or("");
  if (address_.empty() || (address_[0] != '/' && address_[0] != '@') || address_.size() >= sizeof(sockaddr_un::sun_path)) {
    return;
  }
  if (address_[0] == '@') {
    address_[0] = '\0';
  }
  socket_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const auto watchdog_us = read_number(environment("WATCHDOG_USEC"));
  const auto watchdog_pid = environment("WATCHDOG_PID");
  if (watchdog_us && (!watchdog_pid || read_number(watchdog_pid) == std::int64_t{::getpid()})) {
    ping_interval_ = std::chrono::microseconds(*watchdog_us / 2);
  }
}

ServiceNotifier::~ServiceNotifier() {
  if (socket_ >= 0) {
    ::close(socket_);
  }
}

void ServiceNotifier::send(std::string_view message) const {
  if (socket_ < 0) {
    return;
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, address_.data(), address_.size());
  // The length tells an abstract address from one that ends at a zero byte.
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
  static_cast<void>(::sendto(socket_, message.data(), message.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address), length));
}

}  // namespace lockstep::daemon
