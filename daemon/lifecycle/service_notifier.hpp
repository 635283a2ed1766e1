// ServiceNotifier: systemd's notification protocol (sd_notify), one datagram per message.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "lockstep/comm/launch.hpp"
#include "lockstep/core/deadline.hpp"

namespace lockstep::daemon {

/// Tells the service manager where the process stands; does nothing where there is none (NOTIFY_SOCKET unset). Messages are best effort: a lost one is not an
/// error of ours.      Ownership  owns its socket.      Threads  one.      Source  sd_notify(3), "Notes": the environment's protocol.
class ServiceNotifier {
 public:
  explicit ServiceNotifier(const comm::EnvironmentReader& environment);
  ~ServiceNotifier();
  ServiceNotifier(const ServiceNotifier&) = delete;
  ServiceNotifier& operator=(const ServiceNotifier&) = delete;

  [[nodiscard]] bool active() const { return socket_ >= 0; }
  /// How often to ping: half of WATCHDOG_USEC; nullopt where no watchdog waits for this process.
  [[nodiscard]] std::optional<Duration> ping_interval() const { return ping_interval_; }
  /// Lines such as "READY=1\nSTATUS=serving".
  void send(std::string_view message) const;

 private:
  int socket_ = -1;
  std::string address_;  ///< as in sun_path: an abstract one begins with a zero byte
  std::optional<Duration> ping_interval_;
};

}  // namespace lockstep::daemon
