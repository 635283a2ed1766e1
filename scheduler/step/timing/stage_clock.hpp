// StageClock: how long stages take, and for how much of that their thread has no core.
#pragma once

#include <algorithm>
#include <chrono>
#include <ctime>

#include "lockstep/core/deadline.hpp"

namespace lockstep::scheduler {

/// Of the stages that one thread computes, one after the other. To ask how long a thread ran is a system call: so that it takes less than 1 % of any step, the
/// clock asks after kReadEvery of stages, and what stages shorter than that lost counts as the last one's.
/// Threads  that which computes; all calls from one.      Cost  two looks at the steady clock a stage; 0.2 to 0.6 us for each kReadEvery.
class StageClock {
 public:
  static constexpr Duration kReadEvery = std::chrono::microseconds(100);

  struct Time {
    TimePoint begin{};
    TimePoint end{};
    Duration off_core{};  ///< of it, the thread waited or another had its core; interrupts too, where the kernel does not account them to the thread
  };

  void start() {
    begin_ = SteadyClock::instance().now();
    if (begin_ - end_ > kIdleMin) {
      ran_ = thread_ran();  // what it ran for while it looked for work is not the stage's
      unread_ = {};
    }
  }
  [[nodiscard]] Time stop() {
    end_ = SteadyClock::instance().now();
    Time time{.begin = begin_, .end = end_};
    unread_ += end_ - begin_;
    if (unread_ >= kReadEvery) {
      const Duration ran = thread_ran();
      time.off_core = std::clamp(unread_ - (ran - ran_), Duration{}, end_ - begin_);
      ran_ = ran;
      unread_ = {};
    }
    return time;
  }

  /// For how long the calling thread has run so far.
  [[nodiscard]] static Duration thread_ran() {
    std::timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  }

 private:
  static constexpr Duration kIdleMin = std::chrono::microseconds(50);

  TimePoint begin_{};
  TimePoint end_{};
  Duration ran_{};     ///< when it was asked last
  Duration unread_{};  ///< of stages since then
};

}  // namespace lockstep::scheduler
