// Goal: the service manager gets the datagrams that sd_notify(3) describes, and nothing happens without one.
// Method: a datagram socket of the test's own, by path and abstract.
#include "daemon/lifecycle/service_notifier.hpp"

#include <chrono>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

comm::EnvironmentReader reader(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](std::string_view name) -> std::optional<std::string> {
    const auto found = variables.find(std::string(name));
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
}

/// The manager's end.
class Listener {
 public:
  /// `name` as in NOTIFY_SOCKET.
  explicit Listener(const std::string& name) : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') {
      address.sun_path[0] = '\0';
    }
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    bound_ = ::bind(socket_, reinterpret_cast<const sockaddr*>(&address), length) == 0;
    const timeval patience{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~Listener() { ::close(socket_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  [[nodiscard]] bool bound() const { return bound_; }
  [[nodiscard]] std::string receive() const {
    char text[512];
    const ssize_t got = ::recv(socket_, text, sizeof text, 0);
    return got < 0 ? "" : std::string(text, static_cast<std::size_t>(got));
  }

 private:
  int socket_;
  bool bound_ = false;
};

TEST(ServiceNotifier, SendsToASocketByPath) {
  const auto path = std::filesystem::temp_directory_path() / ("lockstep_notify_" + std::to_string(::getpid()));
  std::filesystem::remove(path);
  const Listener listener(path.string());
  ASSERT_TRUE(listener.bound());
  const ServiceNotifier notifier(reader({{"NOTIFY_SOCKET", path.string()}}));
  EXPECT_TRUE(notifier.active());
  notifier.send("READY=1\nSTATUS=serving");
  EXPECT_EQ(listener.receive(), "READY=1\nSTATUS=serving");
  std::filesystem::remove(path);
}

TEST(ServiceNotifier, SendsToAnAbstractSocket) {
  const std::string name = "@lockstep/notify/" + std::to_string(::getpid());
  const Listener listener(name);
  ASSERT_TRUE(listener.bound());
  const ServiceNotifier notifier(reader({{"NOTIFY_SOCKET", name}}));
  notifier.send("WATCHDOG=1");
  EXPECT_EQ(listener.receive(), "WATCHDOG=1");
}

TEST(ServiceNotifier, DoesNothingWithoutAManager) {
  for (const char* name : {"", "relative", "vsock:1:2"}) {
    const ServiceNotifier notifier(reader({{"NOTIFY_SOCKET", name}}));
    EXPECT_FALSE(notifier.active());
    notifier.send("READY=1");
  }
  const ServiceNotifier too_long(reader({{"NOTIFY_SOCKET", "/" + std::string(200, 'x')}}));
  EXPECT_FALSE(too_long.active());
}

TEST(ServiceNotifier, PingsTwiceInAWatchdogPeriodThatIsOurs) {
  using std::chrono::milliseconds;
  const std::string own = std::to_string(::getpid());
  EXPECT_EQ(ServiceNotifier(reader({{"NOTIFY_SOCKET", "@x"}, {"WATCHDOG_USEC", "3000000"}})).ping_interval(), Duration(milliseconds(1500)));
  EXPECT_EQ(ServiceNotifier(reader({{"NOTIFY_SOCKET", "@x"}, {"WATCHDOG_USEC", "3000000"}, {"WATCHDOG_PID", own}})).ping_interval(),
            Duration(milliseconds(1500)));
  EXPECT_FALSE(ServiceNotifier(reader({{"NOTIFY_SOCKET", "@x"}, {"WATCHDOG_USEC", "3000000"}, {"WATCHDOG_PID", "1"}})).ping_interval());
  EXPECT_FALSE(ServiceNotifier(reader({{"NOTIFY_SOCKET", "@x"}, {"WATCHDOG_USEC", "soon"}})).ping_interval());
  EXPECT_FALSE(ServiceNotifier(reader({{"WATCHDOG_USEC", "3000000"}})).ping_interval());
}

}  // namespace
}  // namespace lockstep::daemon
