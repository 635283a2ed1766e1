// Goal    Every backend's all-to-all brings each message whole to its destination, and tells its size.
// Method  Sizes and capacities as functions of the pair; every byte depends on sender, receiver and position, and bytes behind a message must stay as they
// were.
#include "tests/conformance/comm/rank_runner.hpp"

namespace lockstep::comm::testing {
namespace {

class AllToAllConformance : public ::testing::TestWithParam<GroupCase> {};

void expect_exchange(Communicator& communicator, const Exchange::Sizes& sizes, const Exchange::Sizes& capacities) {
  Exchange exchange(communicator, sizes, capacities);
  const Result<Ticket> ticket = communicator.start_all_to_all(exchange.spans());
  ASSERT_TRUE(ticket) << ticket.error().message;
  exchange.wait_and_expect(communicator, *ticket);
}

TEST_P(AllToAllConformance, UnevenMessagesArriveWholeWhenCapacityIsExact) {
  const Exchange::Sizes uneven = [](int source, int destination) { return static_cast<std::size_t>(1 + source * 37 + destination * 5); };
  run_as_every_rank(GetParam(), [&](Communicator& communicator) { expect_exchange(communicator, uneven, uneven); });
}

TEST_P(AllToAllConformance, SizesAreToldAndTheRestIsUntouchedWhenCapacityIsLarger) {
  const Exchange::Sizes sizes = [](int source, int destination) { return static_cast<std::size_t>(1 + source + destination * 3); };
  const Exchange::Sizes capacities = [](int, int) { return std::size_t{4096}; };
  run_as_every_rank(GetParam(), [&](Communicator& communicator) { expect_exchange(communicator, sizes, capacities); });
}

TEST_P(AllToAllConformance, PairsThatDoNotTalkReceiveNothing) {
  const Exchange::Sizes sparse = [](int source, int destination) { return (source + 2 * destination) % 3 == 0 ? std::size_t{513} : std::size_t{0}; };
  run_as_every_rank(GetParam(), [&](Communicator& communicator) { expect_exchange(communicator, sparse, sparse); });
}

TEST_P(AllToAllConformance, AnIdleRankOnlyReceives) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    for (int idle = 0; idle < communicator.size(); ++idle) {
      const Exchange::Sizes sizes = [idle](int source, int) { return source == idle ? std::size_t{0} : std::size_t{77}; };
      expect_exchange(communicator, sizes, sizes);
    }
  });
}

TEST_P(AllToAllConformance, NobodyHasAnythingToSay) {
  const Exchange::Sizes nothing = [](int, int) { return std::size_t{0}; };
  run_as_every_rank(GetParam(), [&](Communicator& communicator) { expect_exchange(communicator, nothing, nothing); });
}

TEST_P(AllToAllConformance, LargeMessagesArriveWholeBesideSmallOnes) {
  // Above every transport's switch from copying at once to asking the receiver first.
  const Exchange::Sizes sizes = [](int source, int destination) { return (source + destination) % 2 == 0 ? std::size_t{1000003} : std::size_t{1}; };
  run_as_every_rank(GetParam(), [&](Communicator& communicator) { expect_exchange(communicator, sizes, sizes); });
}

TEST_P(AllToAllConformance, EveryLengthAroundAPieceArrivesWhole) {
  // 60 KiB and what precedes a message in comm/mpi; with more room than is sent, so that only the sender knows how many pieces there are.
  for (const std::size_t pieces : {1, 2}) {
    for (const std::size_t less : {0, 1, 7, 8, 9}) {
      const std::size_t size = pieces * 61440 - less;
      const Exchange::Sizes sizes = [size](int, int) { return size; };
      const Exchange::Sizes capacities = [](int, int) { return std::size_t{300'000}; };
      run_as_every_rank(GetParam(), [&](Communicator& communicator) { expect_exchange(communicator, sizes, capacities); });
    }
  }
}

TEST_P(AllToAllConformance, TheWrongNumberOfBuffersIsRefusedAndTheGroupGoesOn) {
  const Exchange::Sizes one = [](int, int) { return std::size_t{1}; };
  run_as_every_rank(GetParam(), [&](Communicator& communicator) {
    const Result<Ticket> refused = communicator.start_all_to_all({});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    expect_exchange(communicator, one, one);
  });
}

INSTANTIATE_TEST_SUITE_P(Backends, AllToAllConformance, ::testing::ValuesIn(group_cases()), case_name);

}  // namespace
}  // namespace lockstep::comm::testing
