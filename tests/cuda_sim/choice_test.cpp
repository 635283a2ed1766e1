// Goal    Each rank takes a device of its own, and says why it cannot.
// Method  The choice is a pure function; claims are made and dropped in this process, which stands for two ranks.
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "device/cuda/device_choice.hpp"

namespace lockstep::device::cuda {
namespace {

using ::testing::HasSubstr;

TEST(DeviceChoice, ARankTakesTheDeviceOfItsLocalNumber) {
  for (int rank = 0; rank < 4; ++rank) {
    const auto index = choose_device_index({.local_rank = rank, .local_size = 4}, 4);
    ASSERT_TRUE(index) << index.error().message;
    EXPECT_EQ(*index, rank);
  }
}

TEST(DeviceChoice, TheOnlyVisibleDeviceIsEveryRanks) {
  EXPECT_EQ(*choose_device_index({.local_rank = 3, .local_size = 4}, 1), 0) << "a launcher that shows each rank its own device";
}

TEST(DeviceChoice, MoreRanksThanDevicesAreRefusedUnlessSharingIsAllowed) {
  const auto refused = choose_device_index({.local_rank = 2, .local_size = 3}, 2);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(refused.error().message, HasSubstr("rank 2 of 3 on this host, and CUDA shows 2 devices"));
  EXPECT_EQ(*choose_device_index({.local_rank = 2, .local_size = 3, .share_device = true}, 2), 0);
}

TEST(DeviceChoice, NoDeviceIsRefused) {
  const auto refused = choose_device_index({}, 0);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
}

TEST(DeviceClaim, ADeviceIsOnesAtATime) {
  const std::string device = "test-" + std::to_string(::getpid());
  auto first = DeviceClaim::create(device);
  ASSERT_TRUE(first) << first.error().message;
  const auto second = DeviceClaim::create(device);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(second.error().message, HasSubstr(device));
  EXPECT_TRUE(DeviceClaim::create(device + "-other"));
  first->reset();
  EXPECT_TRUE(DeviceClaim::create(device)) << "the first rank is gone";
}

}  // namespace
}  // namespace lockstep::device::cuda
