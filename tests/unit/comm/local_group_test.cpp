// Goal    LocalGroup notices what other backends cannot: ranks that start different operations, and pairs that disagree about who talks.
// Method  Ranks as threads; where an order matters, the starts are made by one thread, for starts never block.
#include "lockstep/comm/local_group.hpp"

#include <array>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::comm {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Deadline patient() {
  return Deadline::after(std::chrono::seconds(60));
}

Ticket start_reduce(Communicator& communicator, std::size_t length, ReduceOp op = ReduceOp::kSum) {
  const std::vector<std::int32_t> values(length, 1);
  const Result<Ticket> ticket = communicator.start_all_reduce(values, op);
  EXPECT_TRUE(ticket) << ticket.error().message;
  return ticket ? *ticket : Ticket{};
}

Status wait_reduce(Communicator& communicator, Ticket ticket, std::size_t length) {
  std::vector<std::int32_t> result(length, -1);
  return communicator.wait(ticket, result, patient());
}

/// Sends `sent` bytes to every other of two ranks and receives up to `capacity`; nothing to itself.
struct PairExchange {
  PairExchange(int rank, std::size_t sent, std::size_t capacity) : outgoing(sent), incoming(capacity) {
    send[static_cast<std::size_t>(1 - rank)] = outgoing;
    receive[static_cast<std::size_t>(1 - rank)] = incoming;
  }
  [[nodiscard]] AllToAll spans() const { return {.send = send, .receive = receive}; }
  std::vector<std::byte> outgoing;
  std::vector<std::byte> incoming;
  std::array<std::span<const std::byte>, 2> send;
  std::array<std::span<std::byte>, 2> receive;
};

void expect_diverged(const Status& status, const std::string& first, const std::string& second) {
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
  EXPECT_THAT(status.error().message, AllOf(HasSubstr(first), HasSubstr(second)));
}

TEST(LocalGroup, EveryRanksWaitIsDivergedAndNamesBothWhenKindsDiffer) {
  LocalGroup group(3);
  const std::array ranks{group.communicator(0), group.communicator(1), group.communicator(2)};
  const Ticket zero = start_reduce(*ranks[0], 5);
  const std::array<std::span<const std::byte>, 3> send{};
  const std::array<std::span<std::byte>, 3> receive{};
  const Result<Ticket> one = ranks[1]->start_all_to_all({.send = send, .receive = receive});
  ASSERT_TRUE(one);
  // Rank 2 has not come yet, and may never: the others know already.
  expect_diverged(wait_reduce(*ranks[0], zero, 5), "rank 0 started all_reduce(sum) of 5 values", "rank 1 started all_to_all");
  std::array<std::size_t, 3> received{};
  expect_diverged(ranks[1]->wait_all_to_all(*one, received, patient()), "rank 0 started all_reduce(sum) of 5 values", "rank 1 started all_to_all");
  const Ticket two = start_reduce(*ranks[2], 5);
  expect_diverged(wait_reduce(*ranks[2], two, 5), "rank 0 started all_reduce(sum) of 5 values", "rank 1 started all_to_all");
}

TEST(LocalGroup, WaitIsDivergedWhenLengthsOrReductionsDiffer) {
  {
    LocalGroup group(2);
    const std::array ranks{group.communicator(0), group.communicator(1)};
    const Ticket zero = start_reduce(*ranks[0], 5);
    const Ticket one = start_reduce(*ranks[1], 6);
    expect_diverged(wait_reduce(*ranks[0], zero, 5), "of 5 values", "rank 1 started all_reduce(sum) of 6 values");
    expect_diverged(wait_reduce(*ranks[1], one, 6), "of 5 values", "of 6 values");
  }
  LocalGroup group(2);
  const std::array ranks{group.communicator(0), group.communicator(1)};
  const Ticket zero = start_reduce(*ranks[0], 5, ReduceOp::kMin);
  static_cast<void>(start_reduce(*ranks[1], 5, ReduceOp::kMax));
  expect_diverged(wait_reduce(*ranks[0], zero, 5), "all_reduce(min)", "all_reduce(max)");
}

TEST(LocalGroup, OperationsAreMatchedByNumberSoASkippedOneIsNoticedAtTheNext) {
  LocalGroup group(2);
  const std::array ranks{group.communicator(0), group.communicator(1)};
  const Ticket first = start_reduce(*ranks[0], 5);
  static_cast<void>(start_reduce(*ranks[0], 9));
  static_cast<void>(start_reduce(*ranks[1], 9));  // rank 1 skipped the first
  expect_diverged(wait_reduce(*ranks[0], first, 5), "operation 0: rank 0", "of 9 values");
}

TEST(LocalGroup, SendToAPeerThatDoesNotReceiveIsDiverged) {
  LocalGroup group(2);
  const std::array ranks{group.communicator(0), group.communicator(1)};
  const PairExchange talker(0, 8, 8);
  const PairExchange deaf(1, 8, 0);
  const Result<Ticket> zero = ranks[0]->start_all_to_all(talker.spans());
  const Result<Ticket> one = ranks[1]->start_all_to_all(deaf.spans());
  ASSERT_TRUE(zero && one);
  std::array<std::size_t, 2> received{};
  expect_diverged(ranks[1]->wait_all_to_all(*one, received, patient()), "rank 0 sent 8 bytes to rank 1", "at most 0 bytes");
  EXPECT_TRUE(ranks[0]->wait_all_to_all(*zero, received, patient()));
}

TEST(LocalGroup, ReceiveFromAPeerThatSendsNothingIsDiverged) {
  LocalGroup group(2);
  const std::array ranks{group.communicator(0), group.communicator(1)};
  const PairExchange silent(0, 0, 8);
  const PairExchange listener(1, 8, 8);
  const Result<Ticket> zero = ranks[0]->start_all_to_all(silent.spans());
  const Result<Ticket> one = ranks[1]->start_all_to_all(listener.spans());
  ASSERT_TRUE(zero && one);
  std::array<std::size_t, 2> received{};
  expect_diverged(ranks[1]->wait_all_to_all(*one, received, patient()), "rank 0 sent nothing to rank 1", "up to 8 bytes");
}

TEST(LocalGroup, SendBuffersMayBeFreedAfterTheSendersOwnWait) {
  LocalGroup group(2);
  const std::array ranks{group.communicator(0), group.communicator(1)};
  std::array<std::size_t, 2> received{};
  const PairExchange late(1, 4, 4);
  const Result<Ticket> one = ranks[1]->start_all_to_all(late.spans());
  ASSERT_TRUE(one);
  {
    PairExchange early(0, 4, 4);
    std::ranges::fill(early.outgoing, std::byte{42});
    const Result<Ticket> zero = ranks[0]->start_all_to_all(early.spans());
    ASSERT_TRUE(zero);
    ASSERT_TRUE(ranks[0]->wait_all_to_all(*zero, received, patient()));
    std::ranges::fill(early.outgoing, std::byte{13});
  }
  ASSERT_TRUE(ranks[1]->wait_all_to_all(*one, received, patient()));
  EXPECT_THAT(late.incoming, ::testing::Each(std::byte{42}));
}

TEST(LocalGroup, LostRankEndsWaitsPresentAndFutureAndIsNamed) {
  LocalGroup group(3);
  const std::array ranks{group.communicator(0), group.communicator(1), group.communicator(2)};
  const Ticket future = start_reduce(*ranks[1], 1);
  std::array<Status, 2> outcomes;
  const Ticket present = start_reduce(*ranks[0], 1);
  std::thread waiting([&] { outcomes[0] = wait_reduce(*ranks[0], present, 1); });
  group.mark_lost(2);
  waiting.join();
  outcomes[1] = wait_reduce(*ranks[1], future, 1);
  for (const Status& outcome : outcomes) {
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, ErrorCode::kPeerLost);
    EXPECT_EQ(outcome.error().rank, 2);
    EXPECT_THAT(outcome.error().message, HasSubstr("rank 2 is lost"));
  }
  const std::int32_t one = 1;
  const Result<Ticket> after = ranks[0]->start_all_reduce(std::span(&one, 1), ReduceOp::kSum);
  ASSERT_FALSE(after);
  EXPECT_EQ(after.error().code, ErrorCode::kPeerLost);
  EXPECT_THAT(after.error().message, HasSubstr("rank 2 is lost"));
}

TEST(LocalGroup, TimeoutNamesTheRanksThatHaveNotStarted) {
  LocalGroup group(4);
  const std::array ranks{group.communicator(0), group.communicator(2)};
  const Ticket ticket = start_reduce(*ranks[0], 1);
  static_cast<void>(start_reduce(*ranks[1], 1));
  std::int32_t result = -1;
  const Status done = ranks[0]->wait(ticket, std::span(&result, 1), Deadline::after(Duration::zero()));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kTimeout);
  EXPECT_THAT(done.error().message, HasSubstr("operation 0 was not started by rank 1, 3"));
  EXPECT_EQ(result, -1);
}

TEST(LocalGroup, CompletedOperationIsDeliveredEvenWhenTheDeadlineHasPassed) {
  LocalGroup group(2);
  const std::array ranks{group.communicator(0), group.communicator(1)};
  const Ticket ticket = start_reduce(*ranks[0], 1);
  static_cast<void>(start_reduce(*ranks[1], 1));
  std::int32_t result = -1;
  const Status done = ranks[0]->wait(ticket, std::span(&result, 1), Deadline::after(Duration::zero()));
  EXPECT_TRUE(done) << done.error().message;
  EXPECT_EQ(result, 2);
}

TEST(LocalGroup, HookSeesEveryStartAndWaitOfItsRank) {
  std::mutex mutex;
  std::vector<std::string> calls;
  LocalGroup group(1, {.before = [&](int rank, std::string_view operation) {
                     const std::lock_guard lock(mutex);
                     calls.push_back(std::to_string(rank) + " " + std::string(operation));
                     return Status{};
                   }});
  const std::unique_ptr<Communicator> communicator = group.communicator(0);
  EXPECT_TRUE(wait_reduce(*communicator, start_reduce(*communicator, 1), 1));
  const std::array<std::span<const std::byte>, 1> send{};
  const std::array<std::span<std::byte>, 1> receive{};
  const Result<Ticket> ticket = communicator->start_all_to_all({.send = send, .receive = receive});
  ASSERT_TRUE(ticket);
  std::array<std::size_t, 1> received{};
  EXPECT_TRUE(communicator->wait_all_to_all(*ticket, received, patient()));
  EXPECT_THAT(calls, ElementsAre("0 start_all_reduce", "0 wait", "0 start_all_to_all", "0 wait_all_to_all"));
}

TEST(LocalGroup, HookMayCallIntoTheGroupBecauseNoLockIsHeld) {
  LocalGroup* reached = nullptr;
  LocalGroup group(2, {.before = [&](int, std::string_view operation) {
                     if (operation == "wait") {
                       reached->mark_lost(1);
                     }
                     return Status{};
                   }});
  reached = &group;
  const std::unique_ptr<Communicator> communicator = group.communicator(0);
  const Ticket ticket = start_reduce(*communicator, 1);
  const Status done = wait_reduce(*communicator, ticket, 1);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().rank, 1);
}

TEST(LocalGroup, HooksErrorFailsTheCallAndBreaksTheCommunicator) {
  LocalGroup group(1, {.before = [](int, std::string_view) { return Status{Error{ErrorCode::kCancelled, "as the test wants"}}; }});
  const std::unique_ptr<Communicator> communicator = group.communicator(0);
  const std::int32_t one = 1;
  const Result<Ticket> first = communicator->start_all_reduce(std::span(&one, 1), ReduceOp::kSum);
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().code, ErrorCode::kCancelled);
  const Result<Ticket> second = communicator->start_all_reduce(std::span(&one, 1), ReduceOp::kSum);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kPeerLost);
}

TEST(LocalGroup, CommunicatorsOutliveTheHandle) {
  std::unique_ptr<Communicator> communicator;
  {
    LocalGroup group(1);
    communicator = group.communicator(0);
  }
  EXPECT_TRUE(wait_reduce(*communicator, start_reduce(*communicator, 3), 3));
}

TEST(LocalGroupDeathTest, WaitingTwiceForATicketIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  LocalGroup group(1);
  const std::unique_ptr<Communicator> communicator = group.communicator(0);
  const Ticket ticket = start_reduce(*communicator, 1);
  ASSERT_TRUE(wait_reduce(*communicator, ticket, 1));
  EXPECT_DEATH(static_cast<void>(wait_reduce(*communicator, ticket, 1)), "ticket 0 was never given out, or was waited for already");
}

}  // namespace
}  // namespace lockstep::comm
