// Runs one function as every rank of a group: as threads of this process, or as the processes that mpirun started.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm::testing {

/// One backend at one size.
struct GroupCase {
  std::string backend;
  int ranks = 1;
  bool over_local = false;  ///< threads of this process, with a LocalGroup beside it
};
void PrintTo(const GroupCase& group, std::ostream* out);
[[nodiscard]] std::string case_name(const ::testing::TestParamInfo<GroupCase>& info);

/// Started alone: local with 1, 2, 4 and 7 ranks. Under a launcher: every backend of the table for several processes, with the ranks that there are.
/// What needs a device runs where LOCKSTEP_TEST_COMM names it, and then alone: in one process as threads, with a local group beside it.
[[nodiscard]] std::vector<GroupCase> group_cases();

/// A suite's body sees one rank's communicator. Expectations may fail on any thread or process: each fails the ctest.
using RankBody = std::function<void(Communicator& communicator)>;
void run_as_every_rank(const GroupCase& group, const RankBody& body);
/// Says that a test leaves broken communicators behind: this process must not wait for the others to end, as the daemon does not.
void leave_by_exit();

/// Long enough for the slowest sanitizer on a busy machine; a test that passes never waits for it.
[[nodiscard]] Deadline patient();

/// Bytes that tell sender, receiver and position apart.
[[nodiscard]] std::vector<std::byte> message_bytes(int source, int destination, std::size_t size, int salt = 0);

/// The buffers of one rank in one all-to-all.
class Exchange {
 public:
  using Sizes = std::function<std::size_t(int source, int destination)>;
  /// Sends `sizes(rank, peer)` bytes to each peer, and receives at `capacities(peer, rank)`.
  Exchange(const Communicator& communicator, const Sizes& sizes, const Sizes& capacities, int salt = 0);
  [[nodiscard]] AllToAll spans() const { return {.send = send_, .receive = receive_}; }
  /// Waits, and expects every byte as the senders' `sizes` say, and none behind it touched.
  void wait_and_expect(Communicator& communicator, Ticket ticket);
  [[nodiscard]] bool is_untouched() const;

 private:
  Sizes sizes_;
  int salt_;
  std::vector<std::vector<std::byte>> outgoing_;
  std::vector<std::vector<std::byte>> incoming_;
  std::vector<std::span<const std::byte>> send_;
  std::vector<std::span<std::byte>> receive_;
};

}  // namespace lockstep::comm::testing
