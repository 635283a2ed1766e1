// What interrupts take from a thread that computes, of the time that its CPU clock counts as its own: bench_interrupts SECONDS; prints JSON.
// The thread only reads the clock. Where two readings lie apart, something else had the core; of that, its CPU clock tells what another thread had.
#include <cstdlib>
#include <ctime>

#include <fmt/format.h>

#include "lockstep/core/deadline.hpp"
#include "scheduler/step/timing/stage_clock.hpp"

namespace {

using namespace lockstep;

constexpr Duration kApart = std::chrono::nanoseconds(500);  // a reading takes a tenth of it

double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

int main(int argc, char** argv) {
  const int limit_s = argc == 2 ? std::atoi(argv[1]) : 0;
  if (limit_s < 1) {
    fmt::print(stderr, "usage: bench_interrupts SECONDS\n");
    return 2;
  }
  scheduler::StageClock clock;
  clock.start();
  TimePoint last = SteadyClock::instance().now();
  const TimePoint end = last + std::chrono::seconds(limit_s);
  Duration apart{};
  while (last < end) {
    const TimePoint now = SteadyClock::instance().now();
    apart += now - last > kApart ? now - last : Duration{};
    last = now;
  }
  const scheduler::StageClock::Time time = clock.stop();
  const double lasted = seconds(time.end - time.begin);
  fmt::print("{{\"off_core_share\": {:.4f}, \"interrupts_share\": {:.4f}}}\n", seconds(time.off_core) / lasted, seconds(apart - time.off_core) / lasted);
  return 0;
}
