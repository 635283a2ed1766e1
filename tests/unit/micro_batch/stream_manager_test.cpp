// Goal    Streams are handed out in turn or by outstanding work, count that work down whatever becomes of a task, and order each other by events.
// Method  Tasks held by latches, so that what is outstanding is known; inline streams where no thread is needed.
#include <atomic>
#include <latch>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/micro_batch.hpp"

namespace lockstep {
namespace {

const auto kNothing = []() -> Status { return {}; };

TEST(StreamManager, HasTwoStreamsOfEachKindUnlessToldOtherwise) {
  StreamManager manager;
  EXPECT_EQ(manager.num_compute_streams(), 2U);
  EXPECT_EQ(manager.num_comm_streams(), 2U);
  EXPECT_EQ(manager.get_compute_stream().type(), StreamType::kCompute);
  EXPECT_EQ(manager.get_compute_stream().priority(), 0);
  EXPECT_EQ(manager.get_comm_stream().type(), StreamType::kCommunication);
}

TEST(StreamManager, HighPriorityIsMinusOneOnComputeStreamsOnly) {
  StreamManager manager({.use_high_priority = true, .inline_streams = true});
  EXPECT_EQ(manager.get_compute_stream().type(), StreamType::kHighPriority);
  EXPECT_EQ(manager.get_compute_stream().priority(), -1);
  EXPECT_EQ(manager.get_comm_stream().type(), StreamType::kCommunication);
  EXPECT_EQ(manager.get_comm_stream().priority(), 0);
}

TEST(StreamManager, FewerThanOneStreamOfAKindIsRefusedWithTheValue) {
  for (const StreamManagerOptions& options : {StreamManagerOptions{.num_compute_streams = 0}, StreamManagerOptions{.num_comm_streams = -3}}) {
    try {
      const StreamManager manager(options);
      FAIL() << "no exception";
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find(options.num_compute_streams == 0 ? "num_compute_streams is 0" : "num_comm_streams is -3"), std::string::npos);
    }
  }
}

TEST(StreamManager, RoundRobinTakesEachStreamInTurn) {
  StreamManager manager({.num_compute_streams = 3, .inline_streams = true});
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(&manager.get_compute_stream(), &manager.compute_stream(i));
    }
  }
}

TEST(StreamManager, LeastLoadedTakesTheStreamWithTheLeastOutstandingWork) {
  StreamManager manager;
  std::latch go(1);
  const auto held = [&go]() -> Status {
    go.wait();
    return {};
  };
  manager.compute_stream(0).enqueue(held, 100);
  EXPECT_EQ(&manager.get_compute_stream(StreamPolicy::least_loaded), &manager.compute_stream(1));
  manager.compute_stream(1).enqueue(held, 40);
  manager.compute_stream(1).enqueue(kNothing, 50);
  EXPECT_EQ(manager.compute_stream(1).outstanding_work(), 90);
  EXPECT_EQ(&manager.get_compute_stream(StreamPolicy::least_loaded), &manager.compute_stream(1));
  manager.compute_stream(1).enqueue(kNothing, 11);
  EXPECT_EQ(&manager.get_compute_stream(StreamPolicy::least_loaded), &manager.compute_stream(0));
  go.count_down();
  EXPECT_TRUE(manager.synchronize_all());
  EXPECT_EQ(manager.compute_stream(0).outstanding_work(), 0);
  EXPECT_EQ(manager.compute_stream(1).outstanding_work(), 0);
}

TEST(StreamManager, SkippedTasksNoLongerCountAsOutstanding) {
  StreamManager manager;
  StreamHandle& stream = manager.get_compute_stream();
  stream.enqueue([]() -> Status { return Error{ErrorCode::kInternal, "broken on purpose"}; }, 5);
  stream.enqueue(kNothing, 7);
  const Status done = manager.synchronize_all();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().message, "broken on purpose");
  EXPECT_EQ(stream.outstanding_work(), 0);
  EXPECT_TRUE(stream.synchronize()) << "the error was cleared";
}

TEST(StreamManager, AContextHoldsItsEstimateForItsScope) {
  StreamManager manager({.inline_streams = true});
  {
    const auto first = manager.compute_context(StreamPolicy::least_loaded, 10);
    const auto second = manager.compute_context(StreamPolicy::least_loaded, 10);
    EXPECT_NE(&*first, &*second);
    const auto comm = manager.comm_context();
    EXPECT_EQ(comm->type(), StreamType::kCommunication);
    int ran = 0;
    first->enqueue([&ran]() -> Status {
      ++ran;
      return {};
    });
    EXPECT_EQ(ran, 1);
    EXPECT_EQ(first->outstanding_work(), 10);
  }
  EXPECT_EQ(manager.compute_stream(0).outstanding_work(), 0);
  EXPECT_EQ(manager.compute_stream(1).outstanding_work(), 0);
}

TEST(StreamHandle, AnEventOrdersOneStreamBehindAnother) {
  StreamManager manager;
  StreamHandle& compute = manager.get_compute_stream();
  StreamHandle& comm = manager.get_comm_stream();
  std::latch go(1);
  std::vector<int> order;
  const std::unique_ptr<device::Event> event = manager.make_event();
  compute.enqueue([&]() -> Status {
    go.wait();
    order.push_back(1);
    return {};
  });
  compute.record_event(*event);
  comm.wait_event(*event);
  comm.enqueue([&order]() -> Status {
    order.push_back(2);
    return {};
  });
  go.count_down();
  EXPECT_TRUE(comm.synchronize());
  EXPECT_EQ(order, (std::vector{1, 2}));
}

/// Tells when somebody waits.
class WaitSeen final : public Watch {
 public:
  [[nodiscard]] Status failure() const override {
    if (!seen_.exchange(true)) {
      latch_.count_down();
    }
    return {};
  }
  [[nodiscard]] TimePoint last_progress() const override { return {}; }
  void wait() const { latch_.wait(); }

 private:
  mutable std::atomic<bool> seen_ = false;
  mutable std::latch latch_{1};
};

TEST(StreamHandle, TakesTasksWhileAnotherThreadWaitsForIt) {
  StreamManager manager;
  StreamHandle& compute = manager.get_compute_stream();
  StreamHandle& comm = manager.get_comm_stream();
  const WaitSeen watch;
  bool ran = false;
  const std::unique_ptr<device::Event> received = manager.make_event();
  comm.enqueue([&]() -> Status {
    watch.wait();
    compute.enqueue([&ran]() -> Status {  // the compute stream waits for this task's end
      ran = true;
      return {};
    });
    return {};
  });
  comm.record_event(*received);
  compute.wait_event(*received);
  EXPECT_TRUE(compute.synchronize(Deadline::after(std::chrono::seconds(20), &watch)));
  EXPECT_TRUE(ran);
}

TEST(StreamHandle, TakesTasksFromManyThreads) {
  StreamManager manager;
  int count = 0;  // written by the stream's thread alone
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int k = 0; k < 500; ++k) {
          manager.compute_stream(0).enqueue([&count]() -> Status {
            ++count;
            return {};
          });
        }
      });
    }
  }
  EXPECT_TRUE(manager.synchronize_all());
  EXPECT_EQ(count, 2000);
  EXPECT_EQ(manager.compute_stream(0).enqueued_count(), 2000U);
}

TEST(StreamType, HasAName) {
  EXPECT_EQ(stream_type_name(StreamType::kCompute), "compute");
  EXPECT_EQ(stream_type_name(StreamType::kCommunication), "communication");
  EXPECT_EQ(stream_type_name(StreamType::kDefault), "default");
  EXPECT_EQ(stream_type_name(StreamType::kHighPriority), "high_priority");
}

}  // namespace
}  // namespace lockstep
