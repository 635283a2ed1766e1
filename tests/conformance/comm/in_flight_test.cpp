// Goal    Operations that overlap, and calls from changing threads, do not disturb each other on any backend.
// Method  Start many, wait in another order; contents tell which operation they belong to.
#include <algorithm>
#include <deque>
#include <thread>

#include "tests/conformance/comm/rank_runner.hpp"

namespace lockstep::comm::testing {
namespace {

class InFlightConformance : public ::testing::TestWithParam<GroupCase> {};

Ticket start_sum(Communicator& communicator, std::int32_t value) {
  const Result<Ticket> ticket = communicator.start_all_reduce(std::span(&value, 1), ReduceOp::kSum);
  EXPECT_TRUE(ticket) << ticket.error().message;
  return ticket ? *ticket : Ticket{};
}

void expect_sum(Communicator& communicator, Ticket ticket, std::int32_t expected) {
  std::int32_t result = -1;
  const Status done = communicator.wait(ticket, std::span(&result, 1), patient());
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(result, expected);
}

TEST_P(InFlightConformance, MixedOperationsGiveTheirOwnResultsWhenWaitedForInAnotherOrder) {
  const Exchange::Sizes sizes = [](int source, int destination) { return static_cast<std::size_t>(100 + source * 11 + destination); };
  run_as_every_rank(GetParam(), [&](Communicator& communicator) {
    std::deque<Exchange> exchanges;
    std::vector<Ticket> exchange_tickets;
    std::vector<Ticket> sum_tickets;
    for (int i = 0; i < 8; ++i) {
      exchanges.emplace_back(communicator, sizes, sizes, i);
      const Result<Ticket> ticket = communicator.start_all_to_all(exchanges.back().spans());
      ASSERT_TRUE(ticket) << ticket.error().message;
      exchange_tickets.push_back(*ticket);
      sum_tickets.push_back(start_sum(communicator, i));
    }
    for (std::size_t i = 0; i < 8; ++i) {
      // Even ranks from the newest on, odd ones from the oldest.
      const std::size_t index = communicator.rank() % 2 == 0 ? 7 - i : i;
      expect_sum(communicator, sum_tickets[index], static_cast<std::int32_t>(index) * communicator.size());
      exchanges[index].wait_and_expect(communicator, exchange_tickets[index]);
    }
  });
}

TEST_P(InFlightConformance, TestBecomesTrueAndWaitThenGivesTheResult) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    const Ticket ticket = start_sum(communicator, 5);
    const Deadline deadline = patient();
    for (;;) {
      const Result<bool> done = communicator.test(ticket);
      ASSERT_TRUE(done) << done.error().message;
      if (*done) {
        break;
      }
      ASSERT_TRUE(deadline.check()) << "test never became true";
      std::this_thread::yield();
    }
    expect_sum(communicator, ticket, 5 * communicator.size());
  });
}

TEST_P(InFlightConformance, ATicketMayBeWaitedForOnAnotherThread) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    const Ticket ticket = start_sum(communicator, 3);
    std::thread other([&] { expect_sum(communicator, ticket, 3 * communicator.size()); });
    other.join();
    expect_sum(communicator, start_sum(communicator, 4), 4 * communicator.size());
  });
}

TEST_P(InFlightConformance, TicketsThatNobodyWaitsForRunIntoALimit) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    std::vector<Ticket> tickets;
    const std::int32_t one = 1;
    Result<Ticket> ticket = communicator.start_all_reduce(std::span(&one, 1), ReduceOp::kSum);
    for (; ticket && tickets.size() < 100000; ticket = communicator.start_all_reduce(std::span(&one, 1), ReduceOp::kSum)) {
      tickets.push_back(*ticket);
    }
    ASSERT_FALSE(ticket);
    EXPECT_EQ(ticket.error().code, ErrorCode::kResourceExhausted);
    for (const Ticket started : tickets) {
      expect_sum(communicator, started, communicator.size());
    }
    expect_sum(communicator, start_sum(communicator, 2), 2 * communicator.size());
  });
}

INSTANTIATE_TEST_SUITE_P(Backends, InFlightConformance, ::testing::ValuesIn(group_cases()), case_name);

}  // namespace
}  // namespace lockstep::comm::testing
