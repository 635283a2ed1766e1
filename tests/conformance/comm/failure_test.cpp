// Goal    No wait outlives its deadline or its watch on any backend; after a failure outputs are untouched and the communicator says that it is broken.
// Method  One rank stays silent, or sends too much. Time is a clock that advances whenever it is asked, so nothing depends on the machine's speed.
#include <atomic>
#include <string>

#include <gmock/gmock.h>

#include "tests/conformance/comm/rank_runner.hpp"

namespace lockstep::comm::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class CommFailure : public ::testing::TestWithParam<GroupCase> {
 protected:
  void SetUp() override { leave_by_exit(); }
};

/// One millisecond passes between two looks.
class TickingClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return TimePoint(std::chrono::milliseconds(looks_.fetch_add(1) + 1)); }

 private:
  mutable std::atomic<std::int64_t> looks_{0};
};

/// Finds the peer dead at the fifth look.
class DyingPeer final : public Watch {
 public:
  [[nodiscard]] Status failure() const override {
    return looks_.fetch_add(1) < 4 ? Status{} : Status{Error{ErrorCode::kPeerLost, "rank 1: connection closed without goodbye", 1}};
  }
  [[nodiscard]] TimePoint last_progress() const override { return {}; }

 private:
  mutable std::atomic<int> looks_{0};
};

std::vector<GroupCase> cases_with_peers() {
  std::vector<GroupCase> cases = group_cases();
  std::erase_if(cases, [](const GroupCase& group) { return group.ranks < 2; });
  return cases;
}

constexpr std::size_t size_of_pair(int, int) {
  return 16;
}

void expect_broken(Communicator& communicator) {
  const std::int32_t one = 1;
  const Result<Ticket> reduce = communicator.start_all_reduce(std::span(&one, 1), ReduceOp::kSum);
  ASSERT_FALSE(reduce);
  EXPECT_EQ(reduce.error().code, ErrorCode::kPeerLost);
  const Exchange exchange(communicator, size_of_pair, size_of_pair);
  const Result<Ticket> all_to_all = communicator.start_all_to_all(exchange.spans());
  ASSERT_FALSE(all_to_all);
  EXPECT_EQ(all_to_all.error().code, ErrorCode::kPeerLost);
}

TEST_P(CommFailure, SilentPeerMakesTheAllReduceTimeOutAndLeavesTheResult) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    if (communicator.rank() == 1) {
      return;
    }
    const std::int32_t one = 1;
    std::int32_t result = -7;
    const Result<Ticket> ticket = communicator.start_all_reduce(std::span(&one, 1), ReduceOp::kSum);
    ASSERT_TRUE(ticket) << ticket.error().message;
    const TickingClock clock;
    const Status done = communicator.wait(*ticket, std::span(&result, 1), Deadline::after(std::chrono::milliseconds(50), nullptr, clock));
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::kTimeout) << done.error().message;
    EXPECT_THAT(done.error().message, HasSubstr("0.050 s"));
    EXPECT_EQ(result, -7);
    expect_broken(communicator);
  });
}

TEST_P(CommFailure, SilentSenderIsNamedWhenTheAllToAllTimesOut) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    if (communicator.rank() == 1) {
      return;
    }
    const Exchange exchange(communicator, size_of_pair, size_of_pair);
    std::vector<std::size_t> received(static_cast<std::size_t>(communicator.size()), 99);
    const Result<Ticket> ticket = communicator.start_all_to_all(exchange.spans());
    ASSERT_TRUE(ticket) << ticket.error().message;
    const TickingClock clock;
    // Long enough for the others' messages to arrive, so that only the silent one is missing.
    const Status done = communicator.wait_all_to_all(*ticket, received, Deadline::after(std::chrono::seconds(2), nullptr, clock));
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::kTimeout) << done.error().message;
    EXPECT_THAT(done.error().message, HasSubstr("rank 1"));
    EXPECT_TRUE(exchange.is_untouched());
    EXPECT_EQ(received.front(), 99U);
    expect_broken(communicator);
  });
}

TEST_P(CommFailure, WatchEndsAWaitLongBeforeItsLimit) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    if (communicator.rank() == 1) {
      return;
    }
    const std::int32_t one = 1;
    std::int32_t result = -7;
    const Result<Ticket> ticket = communicator.start_all_reduce(std::span(&one, 1), ReduceOp::kSum);
    ASSERT_TRUE(ticket) << ticket.error().message;
    const DyingPeer watch;
    const Status done = communicator.wait(*ticket, std::span(&result, 1), Deadline::after(std::chrono::hours(1), &watch));
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::kPeerLost);
    EXPECT_THAT(done.error().message, HasSubstr("connection closed without goodbye"));
    EXPECT_EQ(done.error().rank, 1);
    EXPECT_EQ(result, -7);
    expect_broken(communicator);
  });
}

/// Rank 1 sends rank 0 so much more than `agreed`, which is what all others send.
void expect_diverged_when_too_long(const GroupCase& group, std::size_t agreed, std::size_t excess) {
  run_as_every_rank(group, [&](Communicator& communicator) {
    const Exchange::Sizes sizes = [&](int source, int destination) { return agreed + (source == 1 && destination == 0 ? excess : 0); };
    const Exchange exchange(communicator, sizes, [&](int, int) { return agreed; });
    std::vector<std::size_t> received(static_cast<std::size_t>(communicator.size()), 99);
    const Result<Ticket> ticket = communicator.start_all_to_all(exchange.spans());
    ASSERT_TRUE(ticket) << ticket.error().message;
    const Status done = communicator.wait_all_to_all(*ticket, received, patient());
    if (communicator.rank() != 0) {
      EXPECT_TRUE(done) << done.error().message;
      return;
    }
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, ErrorCode::kDiverged) << done.error().message;
    EXPECT_EQ(done.error().rank, 1);
    EXPECT_THAT(done.error().message, AllOf(HasSubstr("rank 1"), HasSubstr(std::to_string(agreed) + " bytes")));
    EXPECT_TRUE(exchange.is_untouched());
    EXPECT_EQ(received.front(), 99U);
    expect_broken(communicator);
  });
}

TEST_P(CommFailure, TooLongAMessageIsDivergedAndNamesSenderAndCapacity) {
  expect_diverged_when_too_long(GetParam(), 16, 1);
}

TEST_P(CommFailure, FarTooLongAMessageIsDivergedAlsoWhereItComesInPieces) {
  expect_diverged_when_too_long(GetParam(), 200'000, 1);
}

TEST_P(CommFailure, DifferentOperationsNeverGiveAValue) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    // As many bytes as an all-reduce of one value sends to each peer.
    const auto four_bytes = [](int, int) { return sizeof(std::int32_t); };
    const TickingClock clock;
    const Deadline deadline = Deadline::after(std::chrono::seconds(2), nullptr, clock);
    Status done;
    std::int32_t result = -7;
    if (communicator.rank() == 1) {
      const Exchange exchange(communicator, four_bytes, four_bytes);
      std::vector<std::size_t> received(static_cast<std::size_t>(communicator.size()), 99);
      const Result<Ticket> ticket = communicator.start_all_to_all(exchange.spans());
      ASSERT_TRUE(ticket) << ticket.error().message;
      done = communicator.wait_all_to_all(*ticket, received, deadline);
      EXPECT_TRUE(exchange.is_untouched());
    } else {
      const std::int32_t one = 1;
      const Result<Ticket> ticket = communicator.start_all_reduce(std::span(&one, 1), communicator.rank() == 0 ? ReduceOp::kSum : ReduceOp::kMax);
      ASSERT_TRUE(ticket) << ticket.error().message;
      done = communicator.wait(*ticket, std::span(&result, 1), deadline);
    }
    ASSERT_FALSE(done);
    EXPECT_EQ(result, -7);
  });
}

INSTANTIATE_TEST_SUITE_P(Backends, CommFailure, ::testing::ValuesIn(cases_with_peers()), case_name);

}  // namespace
}  // namespace lockstep::comm::testing
