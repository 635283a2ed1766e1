#include "tests/conformance/comm/rank_runner.hpp"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <thread>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "lockstep/comm/local_group.hpp"

namespace lockstep::comm::testing {

namespace {

constexpr std::byte kUntouched{0xee};

LaunchInfo launch_info() {
  Result<LaunchInfo> info = read_launch_info(process_environment());
  if (!info) {
    fmt::print(stderr, "{}\n", info.error().message);
    _exit(1);
  }
  return *info;
}

/// The one communicator that a process can have of a backend, for all tests; ends with the program.
class ProcessCommunicators : public ::testing::Environment {
 public:
  Communicator& of(const std::string& backend) {
    const auto found = std::ranges::find(made_, backend, [](const auto& entry) { return entry.first; });
    if (found != made_.end()) {
      return *found->second;
    }
    Result<std::unique_ptr<Communicator>> made = make_communicator(backend, {.launch = launch_info()});
    if (!made) {
      fmt::print(stderr, "communicator {}: {}\n", backend, made.error().message);
      _exit(1);
    }
    made_.emplace_back(backend, std::move(*made));
    return *made_.back().second;
  }
  void TearDown() override {
    if (launch_info().world_size > 1 && leave_by_exit_) {
      std::fflush(nullptr);
      _exit(::testing::UnitTest::GetInstance()->Passed() ? 0 : 1);
    }
    made_.clear();
  }
  void leave_by_exit() { leave_by_exit_ = true; }

 private:
  bool leave_by_exit_ = false;
  std::vector<std::pair<std::string, std::unique_ptr<Communicator>>> made_;
};

ProcessCommunicators& process_communicators() {
  // GoogleTest owns it.
  static auto* const environment = new ProcessCommunicators;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): one process, one MPI
  return *environment;
}

const ::testing::Environment* const kRegistered = ::testing::AddGlobalTestEnvironment(&process_communicators());

bool is_multi_process(const std::string& name) {
  return std::ranges::any_of(comm_backends(), [&](const CommBackend& backend) { return backend.name == name && backend.multi_process; });
}

}  // namespace

void PrintTo(const GroupCase& group, std::ostream* out) {
  *out << group.backend << " with " << group.ranks << " ranks";
}

std::string case_name(const ::testing::TestParamInfo<GroupCase>& info) {
  return fmt::format("{}With{}Ranks", info.param.backend, info.param.ranks);
}

std::vector<GroupCase> group_cases() {
  const LaunchInfo info = launch_info();
  if (info.world_size == 1) {
    return {{.backend = "local", .ranks = 1}, {.backend = "local", .ranks = 2}, {.backend = "local", .ranks = 4}, {.backend = "local", .ranks = 7}};
  }
  std::vector<GroupCase> cases;
  for (const CommBackend& backend : comm_backends()) {
    if (backend.multi_process) {
      cases.push_back({.backend = std::string(backend.name), .ranks = info.world_size});
    }
  }
  return cases;
}

void run_as_every_rank(const GroupCase& group, const RankBody& body) {
  if (is_multi_process(group.backend)) {
    body(process_communicators().of(group.backend));
    return;
  }
  LocalGroup local(group.ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < group.ranks; ++rank) {
    threads.emplace_back([&, rank] { body(*local.communicator(rank)); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

void leave_by_exit() {
  process_communicators().leave_by_exit();
}

Deadline patient() {
  return Deadline::after(std::chrono::seconds(60));
}

std::vector<std::byte> message_bytes(int source, int destination, std::size_t size, int salt) {
  std::vector<std::byte> bytes(size);
  auto state = static_cast<std::uint32_t>(source * 7919 + destination * 104729 + salt * 1299709 + 1);
  for (std::byte& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::byte>(state >> 24U);
  }
  return bytes;
}

Exchange::Exchange(const Communicator& communicator, const Sizes& sizes, const Sizes& capacities, int salt) : sizes_(sizes), salt_(salt) {
  for (int peer = 0; peer < communicator.size(); ++peer) {
    outgoing_.push_back(message_bytes(communicator.rank(), peer, sizes(communicator.rank(), peer), salt));
    incoming_.emplace_back(capacities(peer, communicator.rank()), kUntouched);
  }
  send_.assign(outgoing_.begin(), outgoing_.end());
  receive_.assign(incoming_.begin(), incoming_.end());
}

void Exchange::wait_and_expect(Communicator& communicator, Ticket ticket) {
  std::vector<std::size_t> received(incoming_.size(), 12345);
  const Status done = communicator.wait_all_to_all(ticket, received, patient());
  ASSERT_TRUE(done) << done.error().message;
  for (int source = 0; source < communicator.size(); ++source) {
    const std::vector<std::byte>& bytes = incoming_[static_cast<std::size_t>(source)];
    std::vector<std::byte> expected = message_bytes(source, communicator.rank(), sizes_(source, communicator.rank()), salt_);
    EXPECT_EQ(received[static_cast<std::size_t>(source)], expected.size()) << "rank " << communicator.rank() << ", from rank " << source;
    expected.resize(bytes.size(), kUntouched);
    EXPECT_TRUE(bytes == expected) << "rank " << communicator.rank() << ": " << bytes.size() << " bytes from rank " << source << " differ";
  }
}

bool Exchange::is_untouched() const {
  return std::ranges::all_of(incoming_, [](const auto& bytes) { return std::ranges::all_of(bytes, [](std::byte byte) { return byte == kUntouched; }); });
}

}  // namespace lockstep::comm::testing
