// One rank of a group whose ranks exchange over NCCL until one of them dies: loss_test.py starts it and reads what it says.
// Usage  loss_rank VICTIM SPOT FILE: the rank that ends by SIGKILL; where in its last step: before-all-reduce, before-exchange or in-exchange; and a file whose
//        locks keep survivors until all have spoken: who leaves earlier would be one more process that is gone.
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <sys/file.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {
namespace {

constexpr int kLastStep = 25;
/// Above what travels as a padded all-gather.
constexpr std::size_t kMessageBytes = 40000;

/// Knows peers by their process, as the daemon's failure detector does by their connection.
class ProcessWatch final : public Watch {
 public:
  explicit ProcessWatch(std::vector<std::int32_t> processes) : processes_(std::move(processes)) {}
  [[nodiscard]] Status failure() const override {
    for (std::size_t rank = 0; rank < processes_.size(); ++rank) {
      if (::kill(processes_[rank], 0) != 0 && errno == ESRCH) {
        return Error{ErrorCode::kPeerLost, fmt::format("rank {}: its process is gone", rank), static_cast<int>(rank)};
      }
    }
    return {};
  }
  [[nodiscard]] TimePoint last_progress() const override { return {}; }

 private:
  const std::vector<std::int32_t> processes_;
};

class LossRank {
 public:
  LossRank(Communicator& communicator, int victim, std::string_view spot)
      : communicator_(communicator), is_victim_(communicator.rank() == victim), spot_(spot) {}

  Status meet() {
    std::vector<std::int32_t> processes(static_cast<std::size_t>(communicator_.size()), 0);
    processes[static_cast<std::size_t>(communicator_.rank())] = ::getpid();
    LOCKSTEP_RETURN_IF_ERROR(reduce(processes, Deadline::after(std::chrono::seconds(30))));
    watch_.emplace(processes);
    return {};
  }

  Status take_step(int step) {
    const bool last = is_victim_ && step == kLastStep;
    const Deadline deadline = Deadline::after(std::chrono::seconds(60), &*watch_);
    die_if(last && spot_ == "before-all-reduce");
    std::vector<std::int32_t> sum{step};
    LOCKSTEP_RETURN_IF_ERROR(reduce(sum, deadline));
    die_if(last && spot_ == "before-exchange");
    return exchange(last, deadline);
  }

 private:
  static void die_if(bool now) {
    if (now) {
      static_cast<void>(std::raise(SIGKILL));
    }
  }

  Status reduce(std::vector<std::int32_t>& values, const Deadline& deadline) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Ticket ticket, communicator_.start_all_reduce(values, ReduceOp::kSum));
    return communicator_.wait(ticket, values, deadline);
  }

  Status exchange(bool last, const Deadline& deadline) {
    const auto size = static_cast<std::size_t>(communicator_.size());
    std::vector<std::vector<std::byte>> outgoing(size, std::vector<std::byte>(kMessageBytes));
    std::vector<std::vector<std::byte>> incoming = outgoing;
    const std::vector<std::span<const std::byte>> send(outgoing.begin(), outgoing.end());
    const std::vector<std::span<std::byte>> receive(incoming.begin(), incoming.end());
    std::vector<std::size_t> received(size);
    LOCKSTEP_ASSIGN_OR_RETURN(const Ticket ticket, communicator_.start_all_to_all({.send = send, .receive = receive}));
    die_if(last && spot_ == "in-exchange");  // its sizes are on their way
    return communicator_.wait_all_to_all(ticket, received, deadline);
  }

  Communicator& communicator_;
  const bool is_victim_;
  const std::string_view spot_;
  std::optional<ProcessWatch> watch_;
};

Status run(int victim, std::string_view spot, int file, int& rank) {
  LOCKSTEP_ASSIGN_OR_RETURN(const LaunchInfo launch, read_launch_info(process_environment()));
  rank = launch.rank;
  static int step = 0;  // outlives the communicator
  const CommOptions options{
      .launch = launch, .agreement = AgreementTransport::kDevice, .plugin_folder = LOCKSTEP_TEST_PLUGINS, .current_step = [] { return step; }};
  LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> communicator, make_communicator("nccl", options));
  LossRank member(*communicator, victim, spot);
  if (::flock(file, LOCK_SH) != 0) {
    return Error{ErrorCode::kInternal, "cannot lock the file"};
  }
  Status status = member.meet();
  while (status) {
    status = member.take_step(++step);
  }
  static_cast<void>(communicator.release());  // as the daemon leaves: by _exit
  return status;
}

}  // namespace
}  // namespace lockstep::comm

int main(int argc, char** argv) {
  const int file = argc == 4 ? ::open(argv[3], O_RDWR | O_CLOEXEC) : -1;
  if (file < 0) {
    return 64;
  }
  int rank = -1;
  const lockstep::Status status = lockstep::comm::run(static_cast<int>(std::strtol(argv[1], nullptr, 10)), argv[2], file, rank);
  fmt::print("rank {} ends: {}: {}\n", rank, lockstep::error_code_name(status.error().code), status.error().message);
  std::fflush(stdout);
  static_cast<void>(::flock(file, LOCK_UN));
  static_cast<void>(::flock(file, LOCK_EX));  // once nobody holds his any more
  _exit(3);
}
