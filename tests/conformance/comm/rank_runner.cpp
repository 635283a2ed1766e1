#include "tests/conformance/comm/rank_runner.hpp"

#include <algorithm>
#include <barrier>
#include <cstdio>
#include <cstdlib>
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

/// Where a backend could leave all-reduces to another one, it is the backend that is tested.
CommOptions options_of(LaunchInfo launch) {
  return {.launch = std::move(launch), .agreement = AgreementTransport::kDevice, .plugin_folder = LOCKSTEP_TEST_PLUGINS};
}

/// The backend of a device that the environment asks for; null: those that need none.
const CommBackend* wanted_backend() {
  const char* const name = std::getenv("LOCKSTEP_TEST_COMM");
  if (name == nullptr) {
    return nullptr;
  }
  const auto found = std::ranges::find(comm_backends(), name, &CommBackend::name);
  if (found == comm_backends().end()) {
    fmt::print(stderr, "LOCKSTEP_TEST_COMM is \"{}\", which is not in the table of communicators\n", name);
    _exit(1);
  }
  return &*found;
}

/// The one communicator that a process can have of a backend, for all tests; ends with the program.
class ProcessCommunicators : public ::testing::Environment {
 public:
  Communicator& of(const std::string& backend) {
    const auto found = std::ranges::find(made_, backend, [](const auto& entry) { return entry.first; });
    if (found != made_.end()) {
      return *found->second;
    }
    Result<std::unique_ptr<Communicator>> made = make_communicator(backend, options_of(launch_info()));
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
  return fmt::format("{}{}With{}Ranks", info.param.backend, info.param.over_local ? "OverLocal" : "", info.param.ranks);
}

std::vector<GroupCase> group_cases() {
  const LaunchInfo info = launch_info();
  const CommBackend* const wanted = wanted_backend();
  std::vector<GroupCase> cases;
  if (info.world_size == 1) {
    for (const int ranks : {1, 2, 4, 7}) {
      cases.push_back({.backend = wanted == nullptr ? "local" : std::string(wanted->name), .ranks = ranks, .over_local = wanted != nullptr});
    }
    return cases;
  }
  for (const CommBackend& backend : comm_backends()) {
    if (backend.multi_process && (wanted == nullptr ? !backend.needs_device : &backend == wanted)) {
      cases.push_back({.backend = std::string(backend.name), .ranks = info.world_size});
    }
  }
  return cases;
}

namespace {

/// One rank of a group of threads, over a communicator of the backend that it makes.
void run_over_local(const GroupCase& group, std::unique_ptr<Communicator> local, const RankBody& body, std::barrier<>& all_done) {
  const LaunchInfo launch{.rank = local->rank(), .world_size = group.ranks, .local_rank = local->rank(), .local_size = group.ranks};
  const Result<std::unique_ptr<Communicator>> made = wanted_backend()->make_over(std::move(local), options_of(launch));
  EXPECT_TRUE(made) << (made ? "" : made.error().message);
  if (made) {
    body(**made);
  }
  all_done.arrive_and_wait();  // as processes do: a rank that is silent in a test does not leave before the others are done with it
}

}  // namespace

void run_as_every_rank(const GroupCase& group, const RankBody& body) {
  if (!group.over_local && is_multi_process(group.backend)) {
    body(process_communicators().of(group.backend));
    return;
  }
  LocalGroup local(group.ranks);
  std::barrier all_done(group.ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < group.ranks; ++rank) {
    threads.emplace_back([&, rank] { group.over_local ? run_over_local(group, local.communicator(rank), body, all_done) : body(*local.communicator(rank)); });
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
