#include "daemon/lifecycle/signals/signal_policy.hpp"

#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

namespace lockstep::daemon {
namespace {

class AsioSignalPolicy final : public SignalPolicy {
 public:
  AsioSignalPolicy(boost::asio::io_context& io, Duration drain_timeout, SignalActions actions)
      : signals_(io), drain_timer_(io), drain_timeout_(drain_timeout), actions_(std::move(actions)) {}

  void start() override {
    for (const int signal : kPolicySignals) {
      signals_.add(signal);
    }
    wait();
  }

  void stop() override {
    signals_.cancel();
    drain_timer_.cancel();
  }

  void handle(int signal) override {
    if (signal == SIGUSR2) {
      actions_.reload();
    } else if (asked_ == 0) {
      asked_ = 1;
      drain_timer_.expires_after(drain_timeout_);
      drain_timer_.async_wait([this](boost::system::error_code cancelled) {
        if (!cancelled && asked_ == 1) {
          asked_ = 2;
          actions_.stop();
        }
      });
      actions_.drain();
    } else if (signal != SIGUSR1 && asked_ == 1) {
      asked_ = 2;
      actions_.stop();
    } else if (signal != SIGUSR1 && asked_ == 2) {
      asked_ = 3;
      actions_.exit();
    }
  }

 private:
  void wait() {
    signals_.async_wait([this](boost::system::error_code cancelled, int signal) {
      if (!cancelled) {
        handle(signal);
        wait();
      }
    });
  }

  boost::asio::signal_set signals_;
  boost::asio::steady_timer drain_timer_;
  Duration drain_timeout_;
  SignalActions actions_;
  int asked_ = 0;
};

}  // namespace

std::unique_ptr<SignalPolicy> SignalPolicy::create(boost::asio::io_context& io, Duration drain_timeout, SignalActions actions) {
  return std::make_unique<AsioSignalPolicy>(io, drain_timeout, std::move(actions));
}

}  // namespace lockstep::daemon
