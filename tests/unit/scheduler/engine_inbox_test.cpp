// Goal    Nothing that was accepted is lost, wakes are told apart by epoch and step, and a sleeper wakes for everything that it must wake for.
// Method  Rules one by one on one thread, where a sleep that must end returns without waiting; races with real threads and no timing: a sleeper whose limit is
//         an hour away ends only because of the message.
#include "scheduler/engine/engine_inbox.hpp"

#include <atomic>
#include <barrier>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/scheduler_fixtures.hpp"

namespace lockstep::scheduler {
namespace {

using comm::ControlWish;
using ::testing::HasSubstr;
using testing::make_sequence;

TimePoint far_off() {
  return SteadyClock::instance().now() + std::chrono::hours(1);
}

Status submit(EngineInbox& inbox, std::unique_ptr<Sequence> sequence) {
  return inbox.submit({&sequence, 1});
}

TEST(EngineInbox, TakeReturnsEverythingOnceInOrder) {
  EngineInbox inbox(8);
  ASSERT_TRUE(submit(inbox, make_sequence(1, 1, 1)));
  ASSERT_TRUE(submit(inbox, make_sequence(2, 1, 1)));
  inbox.end(9, FinishReason::kCancelled);
  inbox.end(1, FinishReason::kStop);
  EngineInbox::Messages messages;
  inbox.take(messages);
  ASSERT_EQ(messages.submitted.size(), 2U);
  EXPECT_EQ(messages.submitted[0]->request.id, 1U);
  EXPECT_EQ(messages.submitted[1]->request.id, 2U);
  ASSERT_EQ(messages.ends.size(), 2U);
  EXPECT_EQ(messages.ends[0].id, 9U);
  EXPECT_EQ(messages.ends[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(messages.ends[1].id, 1U);
  EXPECT_EQ(messages.ends[1].reason, FinishReason::kStop);
  EXPECT_EQ(messages.wish, ControlWish::kNone);
  inbox.take(messages);
  EXPECT_TRUE(messages.submitted.empty());
  EXPECT_TRUE(messages.ends.empty());
}

TEST(EngineInbox, RefusesMoreThanMaxPendingOpenRequestsUntilOneEnds) {
  EngineInbox inbox(2);
  ASSERT_TRUE(submit(inbox, make_sequence(1, 1, 1)));
  ASSERT_TRUE(submit(inbox, make_sequence(2, 1, 1)));
  EngineInbox::Messages messages;
  inbox.take(messages);  // taken is still open
  const Status refused = submit(inbox, make_sequence(3, 1, 1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("the limit is 2"));
  EXPECT_EQ(inbox.open_requests(), 2);
  inbox.request_ended(1);
  EXPECT_EQ(inbox.open_requests(), 1);
  EXPECT_TRUE(submit(inbox, make_sequence(3, 1, 1)));
}

TEST(EngineInbox, TakesAllOfSeveralOrNone) {
  EngineInbox inbox(3);
  ASSERT_TRUE(submit(inbox, make_sequence(1, 1, 1)));
  const auto submit_ids = [&inbox](const std::vector<RequestId>& ids) {
    std::vector<std::unique_ptr<Sequence>> sequences;
    for (const RequestId id : ids) {
      sequences.push_back(make_sequence(id, 1, 1));
    }
    return inbox.submit(sequences);
  };
  EXPECT_EQ(submit_ids({2, 3, 4, 5}).error().code, ErrorCode::kInvalidArgument) << "they never fit, however long one waits";
  EXPECT_EQ(submit_ids({2, 3, 4}).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(submit_ids({2, 1}).error().code, ErrorCode::kInvalidArgument) << "1 is open";
  EXPECT_EQ(submit_ids({2, 2}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(inbox.open_requests(), 1);
  EXPECT_TRUE(submit_ids({2, 3}));
  EngineInbox::Messages messages;
  inbox.take(messages);
  EXPECT_EQ(messages.submitted.size(), 3U);
  inbox.request_ended(1);
  EXPECT_TRUE(submit_ids({1})) << "an id may come again once it has ended";
}

TEST(EngineInbox, CloseRefusesNewRequestsAndKeepsThoseThatAreIn) {
  EngineInbox inbox(8);
  ASSERT_TRUE(submit(inbox, make_sequence(1, 1, 1)));
  inbox.close();
  const Status refused = submit(inbox, make_sequence(2, 1, 1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kCancelled);
  EngineInbox::Messages messages;
  inbox.take(messages);
  EXPECT_EQ(messages.submitted.size(), 1U);
}

TEST(EngineInbox, AWishClosesAdmissionStaysAndTheStrongestHolds) {
  EngineInbox inbox(8);
  inbox.wish(ControlWish::kDrain);
  EXPECT_FALSE(submit(inbox, make_sequence(1, 1, 1)));
  EngineInbox::Messages messages;
  inbox.take(messages);
  EXPECT_EQ(messages.wish, ControlWish::kDrain);
  inbox.take(messages);
  EXPECT_EQ(messages.wish, ControlWish::kDrain) << "a wish is for good: the next proposal must carry it too";
  inbox.wish(ControlWish::kStop);
  inbox.wish(ControlWish::kDrain);
  inbox.take(messages);
  EXPECT_EQ(messages.wish, ControlWish::kStop);
}

TEST(EngineInboxWake, TheStepAfterTheLastEnteredWakes) {
  EngineInbox inbox(8);
  EXPECT_FALSE(*inbox.woken());
  inbox.on_wake(1, 0, 0);  // before the first step was entered
  EXPECT_TRUE(*inbox.woken());
  inbox.enter(0);
  EXPECT_FALSE(*inbox.woken()) << "it has served";
  inbox.on_wake(1, 0, 1);
  EXPECT_TRUE(*inbox.woken()) << "the sender may be past the agreement of step 0 that we still wait in";
  EXPECT_TRUE(*inbox.woken()) << "asking does not use it up";
  inbox.enter(1);
  EXPECT_FALSE(*inbox.woken());
}

TEST(EngineInboxWake, AStepAlreadyEnteredIsOldNews) {
  EngineInbox inbox(8);
  inbox.enter(5);
  for (const std::int64_t step : {0, 4, 5}) {
    inbox.on_wake(1, 0, step);
    const Result<bool> woken = inbox.woken();
    ASSERT_TRUE(woken) << step;
    EXPECT_FALSE(*woken) << step;
  }
}

TEST(EngineInboxWake, AnOldNewsWakeDoesNotTakeBackTheNext) {
  EngineInbox inbox(8);
  inbox.enter(5);
  inbox.on_wake(1, 0, 6);
  inbox.on_wake(2, 0, 5);
  inbox.on_wake(3, 0, 6);
  EXPECT_TRUE(*inbox.woken());
}

TEST(EngineInboxWake, AnEarlierEpochIsIgnoredWhateverItsStep) {
  EngineInbox inbox(8);
  inbox.set_epoch(3);
  inbox.enter(5);
  inbox.on_wake(1, 2, 6);
  inbox.on_wake(1, 2, 999);
  const Result<bool> woken = inbox.woken();
  ASSERT_TRUE(woken);
  EXPECT_FALSE(*woken);
}

TEST(EngineInboxWake, ALaterStepOrEpochIsADivergenceThatNamesBothSides) {
  for (const auto& [epoch, step] : {std::pair<std::int32_t, std::int64_t>{3, 7}, {4, 6}, {4, 0}}) {
    EngineInbox inbox(8);
    inbox.set_epoch(3);
    inbox.enter(5);
    inbox.on_wake(2, epoch, step);
    const Result<bool> woken = inbox.woken();
    ASSERT_FALSE(woken);
    EXPECT_EQ(woken.error().code, ErrorCode::kDiverged);
    EXPECT_EQ(woken.error().rank, 2);
    EXPECT_THAT(woken.error().message, HasSubstr(fmt::format("epoch {} step {}", epoch, step)));
    EXPECT_THAT(woken.error().message, HasSubstr("epoch 3 step 5"));
    const Status slept = inbox.sleep(far_off());
    ASSERT_FALSE(slept) << "the sleeper hears of it too, at once";
    EXPECT_EQ(slept.error().code, ErrorCode::kDiverged);
  }
}

TEST(EngineInboxSleep, EndsAtOnceForWhatCameBeforeIt) {
  {
    EngineInbox inbox(8);
    ASSERT_TRUE(submit(inbox, make_sequence(1, 1, 1)));
    EXPECT_TRUE(inbox.sleep(far_off()));
  }
  {
    EngineInbox inbox(8);
    inbox.end(1, FinishReason::kCancelled);
    EXPECT_TRUE(inbox.sleep(far_off()));
  }
  {
    EngineInbox inbox(8);
    inbox.wish(ControlWish::kDrain);
    EXPECT_TRUE(inbox.sleep(far_off()));
  }
  {
    EngineInbox inbox(8);
    inbox.enter(3);
    inbox.on_wake(1, 0, 4);
    EXPECT_TRUE(inbox.sleep(far_off()));
  }
}

TEST(EngineInboxSleep, EndsAtItsLimitWhenNothingComes) {
  EngineInbox inbox(8);
  EXPECT_TRUE(inbox.sleep(SteadyClock::instance().now() - std::chrono::seconds(1)));
  EXPECT_TRUE(inbox.sleep(SteadyClock::instance().now()));
}

TEST(EngineInboxSleep, EndsForEachKindOfMessageFromAnotherThread) {
  const std::vector<std::function<void(EngineInbox&)>> messages{
      [](EngineInbox& inbox) { EXPECT_TRUE(submit(inbox, make_sequence(1, 1, 1))); },
      [](EngineInbox& inbox) { inbox.end(1, FinishReason::kCancelled); },
      [](EngineInbox& inbox) { inbox.wish(ControlWish::kDrain); },
      [](EngineInbox& inbox) { inbox.on_wake(1, 0, 0); },
      [](EngineInbox& inbox) { inbox.on_wake(1, 0, 7); },  // a divergence
  };
  for (const auto& message : messages) {
    for (int round = 0; round < 50; ++round) {  // sometimes before the sleep, sometimes in it
      EngineInbox inbox(8);
      std::thread sleeper([&inbox] { static_cast<void>(inbox.sleep(far_off())); });
      message(inbox);
      sleeper.join();  // hangs for an hour when the message is missed
    }
  }
}

TEST(EngineInboxRace, NothingAcceptedIsLostWhenAdmissionClosesUnderSubmitters) {
  constexpr int kSubmitters = 4;
  for (int round = 0; round < 50; ++round) {
    EngineInbox inbox(1 << 20);
    std::atomic<std::int64_t> accepted{0};
    std::barrier start(kSubmitters + 2);
    std::vector<std::thread> threads;
    for (int i = 0; i < kSubmitters; ++i) {
      threads.emplace_back([&, i] {
        start.arrive_and_wait();
        for (int n = 0; n < 1000; ++n) {
          if (!submit(inbox, make_sequence(static_cast<RequestId>(i) * 1000 + static_cast<RequestId>(n), 1, 1))) {
            return;  // closed: every later one is refused too
          }
          accepted.fetch_add(1);
        }
      });
    }
    threads.emplace_back([&] {
      start.arrive_and_wait();
      inbox.wish(ControlWish::kDrain);
    });
    start.arrive_and_wait();
    std::int64_t taken = 0;
    EngineInbox::Messages messages;
    do {  // as the engine does: once the wish is seen, admission is closed and one more take has everything
      inbox.take(messages);
      taken += std::ssize(messages.submitted);
    } while (messages.wish == ControlWish::kNone);
    inbox.take(messages);
    taken += std::ssize(messages.submitted);
    for (std::thread& thread : threads) {
      thread.join();
    }
    EXPECT_EQ(taken, accepted.load());
    EXPECT_EQ(inbox.open_requests(), accepted.load());
  }
}

}  // namespace
}  // namespace lockstep::scheduler
