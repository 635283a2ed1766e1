// One rank of a group whose ranks exchange over NCCL until one of them dies: loss_test.py starts it and reads what it says.
// Usage  loss_rank VICTIM SPOT FILE: the rank that ends by SIGKILL; where in its last step: before-all-reduce, before-exchange, in-exchange, before-graph
// (whose
//        collectives the others then wait in) or stop-before-graph (by SIGSTOP instead, until the others have spoken); and a file whose locks keep survivors
//        until all have spoken: who leaves earlier would be one more process that is gone.
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <iterator>
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
#include "lockstep/comm/device_collectives.hpp"
#include "lockstep/comm/device_messages.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/device/graph.hpp"

namespace lockstep::comm {
namespace {

constexpr int kLastStep = 25;
/// Above what travels as a padded all-gather.
constexpr std::size_t kMessageBytes = 40000;
constexpr std::size_t kBlockBytes = 512;

/// 'T' where it is stopped.
char state_of(int process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::size_t name_end = text.rfind(')');
  return name_end == std::string::npos || name_end + 2 >= text.size() ? '?' : text[name_end + 2];
}

/// Knows peers by their process, as the daemon's failure detector does by their connection and their heartbeats.
class ProcessWatch final : public Watch {
 public:
  explicit ProcessWatch(std::vector<std::int32_t> processes) : processes_(std::move(processes)) {}
  [[nodiscard]] Status failure() const override {
    for (std::size_t rank = 0; rank < processes_.size(); ++rank) {
      if (::kill(processes_[rank], 0) != 0 && errno == ESRCH) {
        return Error{ErrorCode::kPeerLost, fmt::format("rank {}: its process is gone", rank), static_cast<int>(rank)};
      }
      if (state_of(processes_[rank]) == 'T') {
        return Error{ErrorCode::kPeerLost, fmt::format("rank {}: its process is stopped", rank), static_cast<int>(rank)};
      }
    }
    return {};
  }
  [[nodiscard]] TimePoint last_progress() const override { return {}; }
  [[nodiscard]] int process(int rank) const { return processes_[static_cast<std::size_t>(rank)]; }

 private:
  const std::vector<std::int32_t> processes_;
};

/// As the daemon's wait for a device's stream: the messages on their way, and who sends them.
class StreamWatch final : public Watch {
 public:
  StreamWatch(const Watch& group, DeviceMessages& messages) : group_(group), messages_(messages) {}
  [[nodiscard]] Status failure() const override {
    LOCKSTEP_RETURN_IF_ERROR(group_.failure());
    return messages_.check();
  }
  [[nodiscard]] TimePoint last_progress() const override { return {}; }

 private:
  const Watch& group_;
  DeviceMessages& messages_;
};

/// An all-gather and an all-to-all of the device's memory as one graph.
class GraphOfBoth {
 public:
  static Result<std::unique_ptr<GraphOfBoth>> create(Communicator& communicator, const Deadline& deadline) {
    auto made = std::make_unique<GraphOfBoth>();
    LOCKSTEP_ASSIGN_OR_RETURN(made->collectives_, communicator.device_messages()->open_collectives(deadline));
    LOCKSTEP_ASSIGN_OR_RETURN(
        made->device_,
        device::make_device(
            "cuda", {.local_rank = communicator.rank(), .local_size = communicator.size(), .share_device = true, .plugin_folder = LOCKSTEP_TEST_PLUGINS}));
    made->stream_ = made->device_->make_inline_stream("loss");
    const std::size_t bytes = kBlockBytes * static_cast<std::size_t>(communicator.size());
    LOCKSTEP_ASSIGN_OR_RETURN(made->send_, made->device_->allocate(bytes));
    LOCKSTEP_ASSIGN_OR_RETURN(made->receive_, made->device_->allocate(bytes));
    LOCKSTEP_RETURN_IF_ERROR(made->exchange(deadline));
    LOCKSTEP_ASSIGN_OR_RETURN(made->graph_, made->device_->graphs()->capture(*made->stream_, [&made, &deadline] { return made->exchange(deadline); }));
    made->moved_ = made->collectives_->take_captured();
    return made;
  }
  Status run(const Deadline& deadline) {
    LOCKSTEP_RETURN_IF_ERROR(collectives_->launch(*graph_, moved_, *stream_, deadline));
    return stream_->synchronize(deadline);
  }
  /// Until the device is done with it: it is, once the communicator has ended what runs.
  Status settle() { return stream_->synchronize(Deadline::after(std::chrono::seconds(20))); }

 private:
  Status exchange(const Deadline& deadline) {
    const DeviceBlocks blocks{.stream = stream_.get(), .send = send_.as<std::byte>(), .receive = receive_.as<std::byte>(), .bytes = kBlockBytes};
    LOCKSTEP_RETURN_IF_ERROR(collectives_->all_gather(blocks, deadline));
    return collectives_->all_to_all(blocks, deadline);
  }

  DeviceCollectives* collectives_ = nullptr;
  std::unique_ptr<device::Device> device_;
  std::unique_ptr<device::Stream> stream_;
  device::Buffer send_;
  device::Buffer receive_;
  std::unique_ptr<device::Graph> graph_;
  DeviceTraffic moved_;
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
    if (spot_.ends_with("graph")) {
      LOCKSTEP_ASSIGN_OR_RETURN(graph_, GraphOfBoth::create(communicator_, Deadline::after(std::chrono::seconds(30))));
      stream_watch_.emplace(*watch_, *communicator_.device_messages());
    }
    return {};
  }
  /// After a failure in a graph: the communicator's next operation fails, too, and the graph has ended by then, though nobody has answered it.
  Status end(int victim) {
    if (!graph_) {
      return {};
    }
    std::vector<std::int32_t> sum{1};
    if (reduce(sum, Deadline::after(std::chrono::seconds(60), &*watch_))) {
      return Error{ErrorCode::kInternal, "an all-reduce after the failure"};
    }
    Status settled = graph_->settle();
    static_cast<void>(graph_.release());                          // as the daemon leaves: by _exit
    static_cast<void>(::kill(watch_->process(victim), SIGKILL));  // a stopped one holds its lock
    return settled;
  }

  Status take_step(int step) {
    const bool last = is_victim_ && step == kLastStep;
    const Deadline deadline = Deadline::after(std::chrono::seconds(60), &*watch_);
    die_if(last && spot_ == "before-all-reduce");
    std::vector<std::int32_t> sum{step};
    LOCKSTEP_RETURN_IF_ERROR(reduce(sum, deadline));
    die_if(last && spot_ == "before-exchange");
    LOCKSTEP_RETURN_IF_ERROR(exchange(last, deadline));
    return graph_ ? replay(last) : Status{};
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

  Status replay(bool last) {
    die_if(last && spot_ == "before-graph");
    if (last && spot_ == "stop-before-graph") {
      static_cast<void>(std::raise(SIGSTOP));
    }
    return graph_->run(Deadline::after(std::chrono::seconds(60), &*stream_watch_));
  }

  Communicator& communicator_;
  const bool is_victim_;
  const std::string_view spot_;
  std::optional<ProcessWatch> watch_;
  std::optional<StreamWatch> stream_watch_;
  std::unique_ptr<GraphOfBoth> graph_;
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
  if (Status ended = member.end(victim); !ended) {
    status = Error{ErrorCode::kInternal, fmt::format("{}; then: {}", status.error().message, ended.error().message)};
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
