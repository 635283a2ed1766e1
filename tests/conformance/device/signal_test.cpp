// Goal    A signal that the host fires orders streams as a recorded event does, armed ahead too, and carries errors.
// Method  One suite over the table of backends; each order is made by what waits, never by time.
#include <algorithm>
#include <iterator>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/device/device.hpp"
#include "tests/conformance/device/device_fixture.hpp"

namespace lockstep::device {
namespace {

class SignalConformance : public DeviceFixture, public ::testing::WithParamInterface<DeviceBackend> {
 protected:
  void SetUp() override { open(GetParam()); }
};

/// Where tasks run on a thread of the stream's own, and so after the signal that they wait for.
class TaskThreadSignalConformance : public SignalConformance {};

TEST_P(SignalConformance, ASignalNeverArmedHoldsNobodyUp) {
  const auto signal = device_->make_signal();
  EXPECT_TRUE(signal->event().query());
  EXPECT_TRUE(signal->event().reached_within(Duration::zero()));
  stream_->wait_for(signal->event());
  EXPECT_TRUE(stream_->synchronize(patience()));
}

TEST_P(SignalConformance, EachFireLetsThroughWhatWaitsForTheOldestThatIsArmed) {
  const auto signal = device_->make_signal();
  const auto passed = device_->make_event();
  std::vector<int> order;
  for (int i = 0; i < 2; ++i) {
    signal->arm();
    stream_->wait_for(signal->event());
    stream_->enqueue([&order, i]() -> Status {
      order.push_back(i);
      return {};
    });
    if (i == 0) {
      stream_->record(*passed);
    }
  }
  EXPECT_FALSE(signal->event().query());
  EXPECT_FALSE(passed->reached_within(std::chrono::microseconds(1)));
  signal->fire({});
  ASSERT_TRUE(passed->wait(patience()));
  EXPECT_FALSE(signal->event().query()) << "the second is still to come";
  signal->fire({});
  ASSERT_TRUE(signal->event().reached_within(std::chrono::seconds(60)));
  ASSERT_TRUE(stream_->synchronize(patience()));
  EXPECT_EQ(order, (std::vector<int>{0, 1}));
}

TEST_P(TaskThreadSignalConformance, AnErrorReachesAllThatAreArmedAndNoneArmedLater) {
  const auto signal = device_->make_signal();
  bool ran = false;
  const auto run = [&ran]() -> Status {
    ran = true;
    return {};
  };
  for (int i = 0; i < 2; ++i) {
    signal->arm();
    stream_->wait_for(signal->event());
    stream_->enqueue(run);
  }
  signal->fire(Error{ErrorCode::kPeerLost, "rank 1 is gone"});
  signal->fire({});
  const Status failed = stream_->synchronize(patience());
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "rank 1 is gone");
  EXPECT_FALSE(ran);

  signal->arm();
  stream_->wait_for(signal->event());
  stream_->enqueue(run);
  signal->fire({});
  EXPECT_TRUE(stream_->synchronize(patience()));
  EXPECT_TRUE(ran);
}

TEST_P(SignalConformance, AStreamThatWaitsForADestroyedSignalIsCancelled) {
  auto signal = device_->make_signal();
  signal->arm();
  stream_->wait_for(signal->event());
  signal.reset();
  const Status failed = stream_->synchronize(patience());
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kCancelled);
}

TEST_P(SignalConformance, AnErrorIsToldByTheStreamThatWaitedForIt) {
  const auto signal = device_->make_signal();
  for (int i = 0; i < 2; ++i) {
    signal->arm();
    stream_->wait_for(signal->event());
  }
  signal->fire(Error{ErrorCode::kPeerLost, "rank 1 is gone"});
  signal->fire({});
  const Status failed = stream_->synchronize(patience());
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "rank 1 is gone");
  signal->arm();
  stream_->wait_for(signal->event());
  signal->fire({});
  EXPECT_TRUE(stream_->synchronize(patience()));
}

std::string test_name(const ::testing::TestParamInfo<DeviceBackend>& info) {
  return std::string(info.param.name);
}

std::vector<DeviceBackend> with_task_threads() {
  std::vector<DeviceBackend> backends;
  std::ranges::copy_if(device_backends(), std::back_inserter(backends), &DeviceBackend::host_memory);
  return backends;
}

INSTANTIATE_TEST_SUITE_P(AllBackends, SignalConformance, ::testing::ValuesIn(device_backends().begin(), device_backends().end()), test_name);
INSTANTIATE_TEST_SUITE_P(HostBackends, TaskThreadSignalConformance, ::testing::ValuesIn(with_task_threads()), test_name);

}  // namespace
}  // namespace lockstep::device
