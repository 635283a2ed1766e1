// Goal    What host streams promise beyond the interface: a bounded queue, nothing allocated per entry, tasks kept no longer than they run, and a destructor
//         that strands nobody.
// Method  Tasks that wait for the test on latches. The interface's own promises are in tests/conformance/device.
#include "device/host/streams/host_stream.hpp"

#include <algorithm>
#include <atomic>
#include <future>
#include <latch>
#include <thread>

#include "device/host/streams/inline_stream.hpp"
#include "tests/unit/device/allocation_counter.hpp"
#include "tests/unit/device/ops_fixture.hpp"

namespace lockstep::device::host {
namespace {

const Deadline kPatience = Deadline::after(std::chrono::seconds(60));

std::unique_ptr<Stream> make_stream() {
  auto stream = HostStream::create("test stream with a long name", 10);
  EXPECT_TRUE(stream);
  return std::move(*stream);
}

TEST(HostStream, MoreTasksThanTheQueueHoldsRunInOrder) {
  const auto stream = make_stream();
  std::vector<int> order;
  for (int i = 0; i < 3 * static_cast<int>(HostStream::kCapacity); ++i) {
    stream->enqueue([&order, i]() -> Status {
      order.push_back(i);
      return {};
    });
  }
  ASSERT_TRUE(stream->synchronize(kPatience));
  ASSERT_EQ(order.size(), 3 * HostStream::kCapacity);
  EXPECT_TRUE(std::ranges::is_sorted(order));
}

TEST(HostStream, AFullQueueHoldsItsEnqueuerUntilATaskHasRun) {
  const auto stream = make_stream();
  std::latch go(1);
  stream->enqueue([&go]() -> Status {
    go.wait();
    return {};
  });
  for (std::size_t i = 1; i < HostStream::kCapacity; ++i) {
    stream->enqueue([]() -> Status { return {}; });
  }
  std::atomic<bool> entered = false;
  auto last = std::async(std::launch::async, [&] {
    stream->enqueue([]() -> Status { return {}; });
    entered = true;
  });
  // Full: the enqueuer cannot have come through before the first task is let go.
  EXPECT_FALSE(entered);
  go.count_down();
  last.get();
  EXPECT_TRUE(entered);
  EXPECT_TRUE(stream->synchronize(kPatience));
}

TEST(HostStream, EnqueueRecordAndWaitAllocateNothing) {
  const auto a = make_stream();
  const auto b = make_stream();
  HostEvent event;
  int runs = 0;
  const auto round = [&] {
    a->enqueue([&runs]() -> Status {
      ++runs;
      return {};
    });
    a->record(event);
    b->wait_for(event);
    b->enqueue([&runs]() -> Status {
      ++runs;
      return {};
    });
    EXPECT_TRUE(b->synchronize(kPatience));
  };
  round();
  const std::int64_t before = allocation_count();
  for (int i = 0; i < 100; ++i) {
    round();
  }
  EXPECT_EQ(allocation_count(), before);
  EXPECT_EQ(runs, 202);
}

TEST(HostStream, ATaskIsDestroyedBeforeItsEventFires) {
  const auto stream = make_stream();
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> watched = held;
  HostEvent event;
  stream->enqueue([held = std::move(held)]() -> Status { return {}; });
  stream->record(event);
  ASSERT_TRUE(event.wait(kPatience));
  EXPECT_TRUE(watched.expired());
}

TEST(HostStream, DestroyingAStreamThatWaitsEndsItsThreadAndFreesItsWaiters) {
  auto holder = make_stream();
  auto waiting = make_stream();
  const auto other = make_stream();
  std::latch go(1);
  HostEvent never;
  HostEvent from_waiting;
  holder->enqueue([&go]() -> Status {
    go.wait();
    return {};
  });
  holder->record(never);
  bool ran = false;
  waiting->wait_for(never);
  waiting->enqueue([&ran]() -> Status {
    ran = true;
    return {};
  });
  waiting->record(from_waiting);
  other->wait_for(from_waiting);
  waiting.reset();  // would hang here if the wait could not be broken off
  EXPECT_FALSE(ran);
  EXPECT_TRUE(from_waiting.query());
  EXPECT_EQ(from_waiting.wait(kPatience).error().code, ErrorCode::kCancelled);
  EXPECT_EQ(other->synchronize(kPatience).error().code, ErrorCode::kCancelled);
  go.count_down();
  EXPECT_TRUE(holder->synchronize(kPatience));
}

TEST(HostStream, TasksNotYetRunAreDroppedByTheDestructor) {
  std::latch started(1);
  std::latch go(1);
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> watched = held;
  HostEvent event;
  auto stream = make_stream();
  stream->enqueue([&]() -> Status {
    started.count_down();
    go.wait();
    return {};
  });
  stream->enqueue([held = std::move(held)]() -> Status { return {}; });
  stream->record(event);
  started.wait();
  std::jthread destroyer([doomed = std::move(stream)]() mutable { doomed.reset(); });
  go.count_down();
  // Whether the second task still ran is a race by design; that it is gone and its event fired is not.
  destroyer.join();
  EXPECT_TRUE(watched.expired());
  EXPECT_TRUE(event.query());
}

TEST(InlineStream, WaitsForAThreadsEventOnTheCallingThread) {
  const auto thread = make_stream();
  InlineStream now("inline");
  HostEvent event;
  int value = 0;
  thread->enqueue([&value]() -> Status {
    value = 7;
    return {};
  });
  thread->record(event);
  now.wait_for(event);
  EXPECT_EQ(value, 7);
  int seen = 0;
  now.enqueue([&]() -> Status {
    seen = value;
    return {};
  });
  EXPECT_EQ(seen, 7);
}

TEST(InlineStream, RunsATaskBeforeEnqueueReturns) {
  InlineStream now("inline");
  std::thread::id where;
  now.enqueue([&where]() -> Status {
    where = std::this_thread::get_id();
    return {};
  });
  EXPECT_EQ(where, std::this_thread::get_id());
}

}  // namespace
}  // namespace lockstep::device::host
