// Goal: asked once, a rank drains; asked again, it stops; a third time, it leaves; and it stops by itself when draining takes too long.
// Method: signals are handed to the policy, and one is really raised; the io_context is run by the test.
#include "daemon/lifecycle/signals/signal_policy.hpp"

#include <chrono>
#include <csignal>
#include <string>

#include <boost/asio/io_context.hpp>
#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;
using std::chrono_literals::operator""h;

class Signals : public ::testing::Test {
 protected:
  std::unique_ptr<SignalPolicy> make(Duration drain_timeout) {
    return SignalPolicy::create(io_, drain_timeout,
                                {.drain = [this] { said_ += "drain "; },
                                 .stop = [this] { said_ += "stop "; },
                                 .exit = [this] { said_ += "exit "; },
                                 .reload = [this] { said_ += "reload "; }});
  }
  boost::asio::io_context io_;
  std::string said_;
};

TEST_F(Signals, EscalateFromDrainToStopToExit) {
  const auto policy = make(1h);
  policy->handle(SIGTERM);
  EXPECT_EQ(said_, "drain ");
  policy->handle(SIGINT);
  EXPECT_EQ(said_, "drain stop ");
  policy->handle(SIGTERM);
  policy->handle(SIGTERM);
  EXPECT_EQ(said_, "drain stop exit ");
}

TEST_F(Signals, SecondUserSignalReloadsAtAnyTimeAndEndsNothing) {
  const auto policy = make(1h);
  policy->handle(SIGUSR2);
  policy->handle(SIGUSR2);
  policy->handle(SIGTERM);
  policy->handle(SIGUSR2);
  EXPECT_EQ(said_, "reload reload drain reload ");
}

TEST_F(Signals, UserSignalOnlyEverDrains) {
  const auto policy = make(1h);
  policy->handle(SIGUSR1);
  policy->handle(SIGUSR1);
  policy->handle(SIGUSR1);
  EXPECT_EQ(said_, "drain ");
  policy->handle(SIGTERM);
  policy->handle(SIGUSR1);
  EXPECT_EQ(said_, "drain stop ");
}

TEST_F(Signals, DrainThatTakesTooLongBecomesAStopOnce) {
  const auto policy = make(1ms);
  policy->handle(SIGTERM);
  while (said_ != "drain stop " && io_.run_one_for(20s) > 0) {
  }
  EXPECT_EQ(said_, "drain stop ");
  policy->handle(SIGTERM);
  EXPECT_EQ(said_, "drain stop exit ");
}

TEST_F(Signals, RaisedSignalArrives) {
  const auto policy = make(1h);
  policy->start();
  std::raise(SIGUSR1);
  while (said_.empty() && io_.run_one_for(20s) > 0) {
  }
  EXPECT_EQ(said_, "drain ");
  policy->stop();
  io_.run();  // ends: nothing is left to wait for
}

}  // namespace
}  // namespace lockstep::daemon
