// Goal    Every backend's all-reduce gives every rank the same, right result.
// Method  Values that depend on rank and position, lengths around the transports' protocol switches; the expected result is computed serially.
#include <algorithm>
#include <limits>

#include "tests/conformance/comm/rank_runner.hpp"

namespace lockstep::comm::testing {
namespace {

class AllReduceConformance : public ::testing::TestWithParam<GroupCase> {};

std::int32_t value_of(int rank, std::size_t position) {
  return (rank + 1) * 1000 - static_cast<std::int32_t>(position % 997) * (rank % 2 == 0 ? 3 : -5);
}

std::int32_t expected_at(std::size_t position, int ranks, ReduceOp op, int idle_rank) {
  std::int32_t result = op == ReduceOp::kSum ? 0 : (op == ReduceOp::kMin ? std::numeric_limits<std::int32_t>::max() : std::numeric_limits<std::int32_t>::min());
  for (int rank = 0; rank < ranks; ++rank) {
    const std::int32_t value = rank == idle_rank ? 0 : value_of(rank, position);
    result = op == ReduceOp::kSum ? result + value : (op == ReduceOp::kMin ? std::min(result, value) : std::max(result, value));
  }
  return result;
}

void expect_all_reduce(Communicator& communicator, std::size_t length, ReduceOp op, int idle_rank) {
  std::vector<std::int32_t> values(length, 0);
  std::vector<std::int32_t> expected(length);
  for (std::size_t i = 0; i < length; ++i) {
    expected[i] = expected_at(i, communicator.size(), op, idle_rank);
    if (communicator.rank() != idle_rank) {
      values[i] = value_of(communicator.rank(), i);
    }
  }
  std::vector<std::int32_t> result(length, -1);
  const Result<Ticket> ticket = communicator.start_all_reduce(values, op);
  ASSERT_TRUE(ticket) << ticket.error().message;
  const Status done = communicator.wait(*ticket, result, patient());
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_TRUE(result == expected) << "rank " << communicator.rank() << ", length " << length;
}

constexpr std::size_t kLengths[] = {1, 2, 3, 31, 1025, 100003};

TEST_P(AllReduceConformance, SumMinAndMaxAreEqualOnEveryRankAtEveryLength) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    for (const std::size_t length : kLengths) {
      for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMin, ReduceOp::kMax}) {
        expect_all_reduce(communicator, length, op, -1);
      }
    }
  });
}

TEST_P(AllReduceConformance, SumIsEqualOnEveryRankWhicheverOneIsIdle) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    for (int idle = 0; idle < communicator.size(); ++idle) {
      expect_all_reduce(communicator, 7, ReduceOp::kSum, idle);
    }
  });
}

TEST_P(AllReduceConformance, SumBeyondInt32WrapsOnEveryRank) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    for (const std::size_t length : {std::size_t{1}, std::size_t{1025}}) {  // MPI does the longer one itself
      const std::vector<std::int32_t> values(length, std::numeric_limits<std::int32_t>::max());
      std::vector<std::int32_t> result(length);
      const Result<Ticket> ticket = communicator.start_all_reduce(values, ReduceOp::kSum);
      ASSERT_TRUE(ticket) << ticket.error().message;
      ASSERT_TRUE(communicator.wait(*ticket, result, patient()));
      const auto expected = static_cast<std::int32_t>(static_cast<std::uint32_t>(values[0]) * static_cast<std::uint32_t>(communicator.size()));
      EXPECT_EQ(result, std::vector<std::int32_t>(length, expected));
    }
  });
}

TEST_P(AllReduceConformance, NothingToReduceIsRefusedAndTheGroupGoesOn) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    const Result<Ticket> refused = communicator.start_all_reduce({}, ReduceOp::kSum);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    expect_all_reduce(communicator, 1, ReduceOp::kSum, -1);
  });
}

TEST_P(AllReduceConformance, SumsStayRightOverThousandsOfRounds) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    for (int round = 0; round < 2000; ++round) {
      const std::int32_t value[] = {round, communicator.rank()};
      std::int32_t result[] = {0, 0};
      const Result<Ticket> ticket = communicator.start_all_reduce(value, ReduceOp::kSum);
      ASSERT_TRUE(ticket) << ticket.error().message;
      ASSERT_TRUE(communicator.wait(*ticket, result, patient()));
      ASSERT_EQ(result[0], round * communicator.size());
      ASSERT_EQ(result[1], communicator.size() * (communicator.size() - 1) / 2);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Backends, AllReduceConformance, ::testing::ValuesIn(group_cases()), case_name);

}  // namespace
}  // namespace lockstep::comm::testing
