// SignalPolicy: what the process does when it is asked to end, and asked again.
#pragma once

#include <array>
#include <csignal>
#include <functional>
#include <memory>

#include "lockstep/core/deadline.hpp"

namespace boost::asio {
class io_context;
}

namespace lockstep::daemon {

inline constexpr std::array kPolicySignals{SIGUSR1, SIGTERM, SIGINT, SIGUSR2};

/// What the signals set off: the first three in this order, each at most once.
struct SignalActions {
  std::function<void()> drain;   ///< first: accepted requests finish
  std::function<void()> stop;    ///< second SIGTERM or SIGINT, or drain_timeout after the first: open requests end
  std::function<void()> exit;    ///< third: at once
  std::function<void()> reload;  ///< SIGUSR2, each time. Not SIGHUP, which would end mpirun's job
};

/// SIGUSR1, SIGTERM, SIGINT, and SIGUSR2. mpirun forwards only SIGUSR1 in a way that leaves time to drain; it is never more than the first step, as launchers
/// repeat it. Ownership  borrows the io_context.      Threads  the Asio thread.
class SignalPolicy {
 public:
  [[nodiscard]] static std::unique_ptr<SignalPolicy> create(boost::asio::io_context& io, Duration drain_timeout, SignalActions actions);
  virtual ~SignalPolicy() = default;
  SignalPolicy(const SignalPolicy&) = delete;
  SignalPolicy& operator=(const SignalPolicy&) = delete;
  /// Begins to listen.
  virtual void start() = 0;
  /// Ends listening and the timer, so that the io_context can run out of work.
  virtual void stop() = 0;
  /// As if `signal` had come.
  virtual void handle(int signal) = 0;

 protected:
  SignalPolicy() = default;
};

}  // namespace lockstep::daemon
