// Goal: the probes, the service manager and the metrics follow a rank from its start to its end, whatever the step thread does.
// Method: LifeMonitor over a fake engine, a StepProgress that the test moves, and a notification socket of the test's own.
#include "daemon/lifecycle/life_monitor.hpp"

#include <chrono>
#include <cstddef>
#include <cstring>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/lifecycle/log.hpp"
#include "tests/unit/daemon/support/fakes.hpp"

namespace lockstep::daemon::testing {
namespace {

using ::testing::HasSubstr;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

class LifeMonitorTest : public ::testing::Test {
 protected:
  LifeMonitorTest() : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    name_ = "@lockstep/life/" + std::to_string(::getpid());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name_.data() + 1, name_.size() - 1);
    EXPECT_EQ(::bind(socket_, reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name_.size())), 0);
  }
  ~LifeMonitorTest() override { ::close(socket_); }

  void make(int rank, Duration stall_timeout) {
    notifier_ = std::make_unique<ServiceNotifier>([this](std::string_view name) -> std::optional<std::string> {
      return name == "NOTIFY_SOCKET" ? std::optional(name_) : name == "WATCHDOG_USEC" ? std::optional<std::string>("20000") : std::nullopt;
    });
    monitor_ = LifeMonitor::create(
        {.rank = rank, .world_size = 2, .stall_timeout = stall_timeout, .tick_interval = 5ms},
        {.io = &io_, .progress = &progress_, .notifier = notifier_.get(), .metrics = metrics_.get(), .logger = logger_.get(), .on_ready = [this] {
           ++ready_count_;
         }});
    monitor_->start();
  }
  /// All that the service manager was told so far, one line a message.
  std::string told() {
    char text[512];
    for (ssize_t got = 0; (got = ::recv(socket_, text, sizeof text, 0)) > 0;) {
      told_.append(text, static_cast<std::size_t>(got)).append("\n");
    }
    return told_;
  }
  /// Runs the timers until `condition` holds; false after twenty seconds.
  template <typename Condition>
  bool run_until(Condition condition) {
    const TimePoint limit = std::chrono::steady_clock::now() + 20s;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > limit) {
        return false;
      }
      io_.run_one_for(100ms);
    }
    return true;
  }
  void become_ready() {
    monitor_->set_engine(&engine_);
    monitor_->set_state(LifeState::kWarming);
    progress_.advance(0, -1, comm::StepPhase::kSleeping);
    ASSERT_EQ(monitor_->ready_response().status, 200);
  }

  boost::asio::io_context io_;
  comm::StepProgress progress_;
  std::unique_ptr<Metrics> metrics_ = Metrics::create({.world_size = 2, .transport = "mpi"});
  std::shared_ptr<spdlog::logger> logger_ = make_logger(0, 2, "error");
  FakeEngine engine_{true};
  int socket_;
  std::string name_;
  std::string told_;
  int ready_count_ = 0;
  std::unique_ptr<ServiceNotifier> notifier_;
  std::unique_ptr<LifeMonitor> monitor_;
};

TEST_F(LifeMonitorTest, LoadingRankIsAliveAndNotReady) {
  make(0, 10s);
  monitor_->set_state(LifeState::kLoading);
  EXPECT_EQ(monitor_->health_response().status, 200);
  const HttpResponse ready = monitor_->ready_response();
  EXPECT_EQ(ready.status, 503);
  EXPECT_THAT(ready.body, HasSubstr(R"("status":"loading")"));
  EXPECT_TRUE(run_until([this] { return told().find("EXTEND_TIMEOUT_USEC=") != std::string::npos; }));
  EXPECT_EQ(told().find("READY=1"), std::string::npos);
}

TEST_F(LifeMonitorTest, RunningEngineMakesItReadyOnceAndTellsTheManager) {
  make(0, 10s);
  become_ready();
  EXPECT_EQ(monitor_->health_response().status, 200);
  EXPECT_EQ(ready_count_, 1);
  EXPECT_THAT(told(), HasSubstr("READY=1\nSTATUS=serving"));
  EXPECT_THAT(metrics_->text(), HasSubstr("lockstep_up_state{rank=\"0\",state=\"ready\"} 1\n"));
}

TEST_F(LifeMonitorTest, ReadinessIsNoticedWithoutAProbe) {
  make(0, 10s);
  monitor_->set_engine(&engine_);
  monitor_->set_state(LifeState::kWarming);
  EXPECT_TRUE(run_until([this] { return ready_count_ == 1; }));
}

TEST_F(LifeMonitorTest, DrainingEngineTurnsReadinessOffAtOnce) {
  make(0, 10s);
  become_ready();
  engine_.request_drain();
  EXPECT_THAT(monitor_->ready_response().body, HasSubstr(R"("status":"draining")"));
  EXPECT_EQ(monitor_->ready_response().status, 503);
  EXPECT_EQ(monitor_->health_response().status, 200);
  EXPECT_THAT(told(), HasSubstr("STOPPING=1"));
}

TEST_F(LifeMonitorTest, StallTurnsBothProbesAndTheWatchdogOff) {
  make(0, 60ms);
  become_ready();
  EXPECT_TRUE(run_until([this] { return told().find("WATCHDOG=1") != std::string::npos; }));
  progress_.advance(9, 2, comm::StepPhase::kComputing);
  EXPECT_TRUE(run_until([this] { return monitor_->health_response().status == 503; }));
  EXPECT_THAT(monitor_->ready_response().body, HasSubstr(R"("status":"stalled")"));
  static_cast<void>(told());
  told_.clear();
  const TimePoint pings_would_have_come = std::chrono::steady_clock::now() + 100ms;
  run_until([&] { return std::chrono::steady_clock::now() > pings_would_have_come; });
  EXPECT_EQ(told().find("WATCHDOG=1"), std::string::npos);
  progress_.advance(10, -1, comm::StepPhase::kSleeping);
  EXPECT_EQ(monitor_->health_response().status, 200) << "it goes on";
  EXPECT_TRUE(run_until([this] { return told().find("WATCHDOG=1") != std::string::npos; }));
}

TEST_F(LifeMonitorTest, OtherRanksAreSilentTowardsTheManager) {
  make(1, 10s);
  become_ready();
  const TimePoint limit = std::chrono::steady_clock::now() + 50ms;
  run_until([&] { return std::chrono::steady_clock::now() > limit; });
  EXPECT_EQ(told(), "");
}

TEST_F(LifeMonitorTest, FaultedRankFailsBothProbes) {
  make(0, 10s);
  become_ready();
  monitor_->set_state(LifeState::kFaulted);
  EXPECT_EQ(monitor_->health_response().status, 503);
  EXPECT_EQ(monitor_->ready_response().status, 503);
}

TEST_F(LifeMonitorTest, StoppedMonitorLeavesNoWork) {
  make(0, 10s);
  become_ready();
  monitor_->stop();
  io_.run_for(20s);
  EXPECT_TRUE(io_.stopped()) << "a timer still waits";
}

}  // namespace
}  // namespace lockstep::daemon::testing
