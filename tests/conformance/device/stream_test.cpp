// Goal    Streams and events of every backend order work, carry errors, and hand the enqueuer's context to tasks.
// Method  One suite over the table of backends, on thread streams and on inline streams.
#include "lockstep/device/stream.hpp"

#include <algorithm>
#include <iterator>
#include <latch>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/device/device.hpp"
#include "lockstep/forward_context.hpp"
#include "tests/conformance/device/device_fixture.hpp"

namespace lockstep::device {
namespace {

class StreamConformance : public DeviceFixture, public ::testing::WithParamInterface<std::tuple<DeviceBackend, bool>> {
 protected:
  void SetUp() override { open(std::get<0>(GetParam())); }
  [[nodiscard]] bool is_inline() const { return std::get<1>(GetParam()); }
  std::unique_ptr<Stream> make_stream() {
    if (is_inline()) {
      return device_->make_inline_stream("a");
    }
    auto stream = device_->make_stream("a");
    EXPECT_TRUE(stream) << stream.error().message;
    return std::move(*stream);
  }
  std::unique_ptr<Stream> make_thread_stream() {
    auto stream = device_->make_stream("b");
    EXPECT_TRUE(stream) << stream.error().message;
    return std::move(*stream);
  }
};

/// Where tasks run on a thread of the stream's own, they may wait for the host.
class TaskThreadConformance : public StreamConformance {};

Status fail_once() {
  return Error{ErrorCode::kUnsupported, "made to fail"};
}

TEST_P(StreamConformance, TasksRunInTheOrderOfTheirEnqueueing) {
  const auto stream = make_stream();
  EXPECT_EQ(stream->name(), "a");
  std::vector<int> order;
  for (int i = 0; i < 1000; ++i) {
    stream->enqueue([&order, i]() -> Status {
      order.push_back(i);
      return {};
    });
  }
  ASSERT_TRUE(stream->synchronize(patience()));
  ASSERT_EQ(order.size(), 1000U);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
  }
}

TEST_P(StreamConformance, AnEventNeverRecordedIsComplete) {
  const auto event = device_->make_event();
  EXPECT_TRUE(event->query());
  EXPECT_TRUE(event->wait(patience()));
  const auto stream = make_stream();
  stream->wait_for(*event);
  EXPECT_TRUE(stream->synchronize(patience()));
}

TEST_P(StreamConformance, AnEventIsCompleteWhenTheWorkBeforeItHasRun) {
  const auto stream = make_stream();
  const auto event = device_->make_event();
  bool ran = false;
  stream->enqueue([&ran]() -> Status {
    ran = true;
    return {};
  });
  stream->record(*event);
  ASSERT_TRUE(event->wait(patience()));
  EXPECT_TRUE(event->query());
  EXPECT_TRUE(ran);
}

TEST_P(StreamConformance, TwoStreamsTakeTurnsByEvents) {
  const auto a = make_stream();
  const auto b = make_thread_stream();
  const auto a_done = device_->make_event();
  const auto b_done = device_->make_event();
  std::vector<int> order;  // unguarded: the events are what keeps the two apart
  for (int i = 0; i < 200; ++i) {
    a->wait_for(*b_done);
    a->enqueue([&order, i]() -> Status {
      order.push_back(2 * i);
      return {};
    });
    a->record(*a_done);
    b->wait_for(*a_done);
    b->enqueue([&order, i]() -> Status {
      order.push_back(2 * i + 1);
      return {};
    });
    b->record(*b_done);
  }
  ASSERT_TRUE(a->synchronize(patience()));
  ASSERT_TRUE(b->synchronize(patience()));
  ASSERT_EQ(order.size(), 400U);
  for (int i = 0; i < 400; ++i) {
    EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
  }
}

TEST_P(TaskThreadConformance, AWaitIsForTheRecordThatCameBeforeItNotForALaterOne) {
  const auto first = make_stream();
  const auto second = make_thread_stream();
  const auto waiter = make_thread_stream();
  const auto event = device_->make_event();
  std::latch go(1);
  first->record(*event);
  waiter->wait_for(*event);
  second->enqueue([&go]() -> Status {
    go.wait();
    return {};
  });
  second->record(*event);  // replaces the point, for waits enqueued from now on
  EXPECT_TRUE(waiter->synchronize(patience())) << "would time out if it waited for the second record";
  EXPECT_FALSE(event->query());
  go.count_down();
  EXPECT_TRUE(event->wait(patience()));
  EXPECT_TRUE(second->synchronize(patience()));
}

TEST_P(StreamConformance, AfterAFailureTasksAreSkippedUntilSynchronizeReturnsIt) {
  const auto stream = make_stream();
  int runs = 0;
  const auto count = [&runs]() -> Status {
    ++runs;
    return {};
  };
  stream->enqueue(count);
  stream->enqueue(fail_once);
  stream->enqueue(count);
  stream->enqueue([]() -> Status { return Error{ErrorCode::kInternal, "a later failure"}; });
  const Status failed = stream->synchronize(patience());
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "made to fail");
  EXPECT_EQ(runs, 1);

  stream->enqueue(count);
  EXPECT_TRUE(stream->synchronize(patience()));
  EXPECT_EQ(runs, 2);
}

TEST_P(StreamConformance, EventsFireAfterAFailureAndCarryItToWaitingStreams) {
  const auto a = make_stream();
  const auto b = make_thread_stream();
  const auto before = device_->make_event();
  const auto after = device_->make_event();
  bool ran = false;
  a->record(*before);
  a->enqueue(fail_once);
  a->record(*after);
  b->wait_for(*before);
  b->wait_for(*after);
  b->enqueue([&ran]() -> Status {
    ran = true;
    return {};
  });
  EXPECT_TRUE(before->wait(patience())) << "recorded before the failure";
  const Status carried = after->wait(patience());
  ASSERT_FALSE(carried);
  EXPECT_EQ(carried.error().code, ErrorCode::kUnsupported);
  EXPECT_TRUE(after->query());
  EXPECT_EQ(b->synchronize(patience()).error().message, "made to fail");
  EXPECT_FALSE(ran);
  EXPECT_FALSE(a->synchronize(patience()));
  EXPECT_TRUE(a->synchronize(patience()));
}

TEST_P(StreamConformance, ATaskThatThrowsFailsWithItsWords) {
  const auto stream = make_stream();
  stream->enqueue([]() -> Status { throw std::runtime_error("thrown words"); });
  const Status failed = stream->synchronize(patience());
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kInternal);
  EXPECT_NE(failed.error().message.find("thrown words"), std::string::npos);
  stream->enqueue([]() -> Status { throw 5; });
  EXPECT_EQ(stream->synchronize(patience()).error().code, ErrorCode::kInternal);
}

TEST_P(StreamConformance, TheEnqueuersForwardContextIsCurrentInsideTheTask) {
  const auto stream = make_stream();
  ForwardContext context;
  context.virtual_engine = 41;
  std::vector<int> seen;
  const auto look = [&seen]() -> Status {
    seen.push_back(is_forward_context_available() ? get_forward_context().virtual_engine : -1);
    return {};
  };
  stream->enqueue(look);
  {
    const set_forward_context scope(context);
    stream->enqueue(look);
  }
  stream->enqueue(look);
  ASSERT_TRUE(stream->synchronize(patience()));
  EXPECT_EQ(seen, (std::vector<int>{-1, 41, -1}));
  EXPECT_FALSE(is_forward_context_available());
}

TEST_P(TaskThreadConformance, WaitsEndByTheirDeadline) {
  const auto stream = make_thread_stream();
  const auto event = device_->make_event();
  std::latch go(1);
  stream->enqueue([&go]() -> Status {
    go.wait();
    return {};
  });
  stream->record(*event);
  const Deadline passed = Deadline::after(std::chrono::nanoseconds(0));
  EXPECT_FALSE(event->query());
  EXPECT_EQ(event->wait(passed).error().code, ErrorCode::kTimeout);
  EXPECT_EQ(stream->synchronize(passed).error().code, ErrorCode::kTimeout);
  go.count_down();
  EXPECT_TRUE(stream->synchronize(patience()));
}

TEST_P(StreamConformance, AnEventOutlivesItsStream) {
  const auto event = device_->make_event();
  {
    const auto stream = make_stream();
    stream->enqueue([]() -> Status { return {}; });
    ASSERT_TRUE(stream->synchronize(patience()));
    stream->record(*event);
  }
  EXPECT_TRUE(event->wait(patience()));
  EXPECT_TRUE(event->query());
}

TEST_P(StreamConformance, TimesFollowTheOrderOfStreamsWhereADeviceHasThem) {
  const Result<std::unique_ptr<StreamTimes>> times = device_->make_stream_times(3);
  ASSERT_TRUE(times) << times.error().message;
  ASSERT_EQ(*times == nullptr, device_->host_memory()) << "a host's streams run when its clock says";
  if (*times == nullptr) {
    return;
  }
  const auto first = make_stream();
  const auto second = make_thread_stream();
  const auto event = device_->make_event();
  (*times)->mark(0, *first);
  first->record(*event);
  second->wait_for(*event);
  (*times)->mark(1, *second);
  ASSERT_TRUE(second->synchronize(patience()));
  const Result<Duration> between = (*times)->between(0, 1);
  ASSERT_TRUE(between) << between.error().message;
  EXPECT_GE(*between, Duration::zero());
  EXPECT_FALSE((*times)->between(0, 2)) << "never marked";
}

std::string test_name(const ::testing::TestParamInfo<std::tuple<DeviceBackend, bool>>& info) {
  return std::string(std::get<0>(info.param).name) + (std::get<1>(info.param) ? "_inline" : "_thread");
}

std::vector<DeviceBackend> with_task_threads() {
  std::vector<DeviceBackend> backends;
  std::ranges::copy_if(device_backends(), std::back_inserter(backends), &DeviceBackend::host_memory);
  return backends;
}

INSTANTIATE_TEST_SUITE_P(AllBackends, StreamConformance,
                         ::testing::Combine(::testing::ValuesIn(device_backends().begin(), device_backends().end()), ::testing::Bool()), test_name);
INSTANTIATE_TEST_SUITE_P(HostBackends, TaskThreadConformance, ::testing::Combine(::testing::ValuesIn(with_task_threads()), ::testing::Bool()), test_name);

}  // namespace
}  // namespace lockstep::device
