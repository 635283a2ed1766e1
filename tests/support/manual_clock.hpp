// ManualClock: time that passes when a test says so.
#pragma once

#include <atomic>

#include "lockstep/core/deadline.hpp"

namespace lockstep::test {

/// Starts at one hour, so that going back a little is still a valid time.      Threads  any: one may advance while others read.
class ManualClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return TimePoint(Duration(now_.load())); }
  void advance(Duration by) { now_.fetch_add(by.count()); }

 private:
  std::atomic<Duration::rep> now_{Duration(std::chrono::hours(1)).count()};
};

}  // namespace lockstep::test
