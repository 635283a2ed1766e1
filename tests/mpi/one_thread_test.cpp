// Goal    A second thread in MPI ends the process, and says why: MPI is started for one thread at a time, and two would corrupt messages.
// Method  Two processes under mpirun, of which the other never comes to the all-reduce. Of the first, one thread waits for it, and is held inside the call by
// the
//         clock of its deadline; then another thread looks at the same ticket. ctest wants the message, which comes from the process's end.
#include <array>
#include <cstdio>
#include <latch>
#include <thread>
#include <unistd.h>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {
namespace {

/// Once armed, whoever reads it says that it is there and stays.
class HoldingClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override {
    if (armed) {
      inside.count_down();
      pause();  // until the process ends
    }
    return SteadyClock::instance().now();
  }
  bool armed = false;
  mutable std::latch inside{1};
};

int run() {
  const Result<LaunchInfo> launch = read_launch_info(process_environment());
  const auto communicator = launch ? make_communicator("mpi", {.launch = *launch}) : Result<std::unique_ptr<Communicator>>(launch.error());
  if (!communicator || (*communicator)->size() != 2) {
    std::fputs("run this under mpirun -n 2\n", stderr);
    return 1;
  }
  if ((*communicator)->rank() == 1) {
    pause();  // mpirun ends it
  }
  const Result<Ticket> ticket = (*communicator)->start_all_reduce(std::array<std::int32_t, 1>{1}, ReduceOp::kSum);
  if (!ticket) {
    std::fputs(ticket.error().message.c_str(), stderr);
    return 1;
  }
  HoldingClock clock;
  const Deadline deadline = Deadline::after(std::chrono::minutes(1), nullptr, clock);
  clock.armed = true;
  const std::thread waits([&] {
    std::array<std::int32_t, 1> result{};
    static_cast<void>((*communicator)->wait(*ticket, result, deadline));
  });
  clock.inside.wait();
  const Result<bool> seen = (*communicator)->test(*ticket);
  std::fprintf(stderr, "the second thread was let in: %s\n", seen ? "it got an answer" : seen.error().message.c_str());
  _exit(1);  // the other thread never returns
}

}  // namespace
}  // namespace lockstep::comm

int main() {
  return lockstep::comm::run();
}
