// Goal    Every device backend gives memory as the interface says, and its ops compute.
// Method  One suite over the table of backends. On a device, memory is touched inside a stream's task, as the engine does.
#include "lockstep/device/device.hpp"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace lockstep::device {
namespace {

class DeviceConformance : public ::testing::TestWithParam<DeviceBackend> {
 protected:
  void SetUp() override {
    auto device = GetParam().make({.local_rank = 0, .core_count = 2});
    ASSERT_TRUE(device) << device.error().message;
    device_ = std::move(*device);
  }
  std::unique_ptr<Device> device_;
};

TEST_P(DeviceConformance, TheNameIsThatOfTheTable) {
  EXPECT_EQ(device_->name(), GetParam().name);
  auto by_name = make_device(GetParam().name, {});
  ASSERT_TRUE(by_name);
  EXPECT_EQ((*by_name)->name(), GetParam().name);
}

TEST_P(DeviceConformance, MemoryIsZeroedAlignedAndWritable) {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{63}, std::size_t{4096}, std::size_t{1} << 20U, (std::size_t{5} << 20U) + 3}) {
    auto buffer = device_->allocate(bytes);
    ASSERT_TRUE(buffer) << buffer.error().message;
    EXPECT_EQ(buffer->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer->as<void>()) % 64, 0U);
    auto* data = buffer->as<unsigned char>();
    for (std::size_t i = 0; i < bytes; ++i) {
      ASSERT_EQ(data[i], 0) << i << " of " << bytes;
    }
    data[0] = 1;
    data[bytes - 1] = 2;
  }
}

TEST_P(DeviceConformance, MemoryUsedBeforeIsZeroedAgain) {
  for (int round = 0; round < 3; ++round) {
    auto buffer = device_->allocate(1000);
    ASSERT_TRUE(buffer);
    auto* data = buffer->as<unsigned char>();
    for (std::size_t i = 0; i < 1000; ++i) {
      ASSERT_EQ(data[i], 0);
      data[i] = 0xff;
    }
  }
}

TEST_P(DeviceConformance, NoBytesAreABuffer) {
  auto buffer = device_->allocate(0);
  ASSERT_TRUE(buffer);
  EXPECT_EQ(buffer->bytes(), 0U);
}

TEST_P(DeviceConformance, MoreMemoryThanThereIsIsAnErrorThatSaysHowMuch) {
  for (const std::size_t bytes : {std::size_t{1} << 60U, SIZE_MAX}) {
    const auto buffer = device_->allocate(bytes);
    ASSERT_FALSE(buffer);
    EXPECT_EQ(buffer.error().code, ErrorCode::kResourceExhausted);
    EXPECT_NE(buffer.error().message.find(std::to_string(bytes)), std::string::npos);
  }
}

TEST_P(DeviceConformance, AMovedBufferIsOwnedOnce) {
  auto first = device_->allocate(128);
  auto second = device_->allocate(2 << 20U);
  ASSERT_TRUE(first && second);
  void* data = first->as<void>();
  Buffer taken(std::move(*first));
  EXPECT_EQ(taken.as<void>(), data);
  *second = std::move(taken);
  EXPECT_EQ(second->as<void>(), data);
  EXPECT_EQ(second->bytes(), 128U);
}

TEST_P(DeviceConformance, OpsRunInsideAStreamsTask) {
  auto ops = device_->make_ops();
  ASSERT_TRUE(ops) << ops.error().message;
  EXPECT_FALSE((*ops)->instruction_set().empty());
  auto stream = device_->make_stream("ops");
  ASSERT_TRUE(stream);
  auto x = device_->allocate(8 * sizeof(float));
  auto y = device_->allocate(8 * sizeof(float));
  ASSERT_TRUE(x && y);
  auto* ones = y->as<float>();
  (*stream)->enqueue([ones]() -> Status {
    std::fill_n(ones, 8, 1.0F);
    return {};
  });
  for (int i = 0; i < 3; ++i) {
    (*stream)->enqueue([&ops, &stream, to = x->as<float>(), ones]() -> Status {
      (*ops)->add(**stream, ones, 8, to);
      return {};
    });
  }
  ASSERT_TRUE((*stream)->synchronize(Deadline::after(std::chrono::seconds(60))));
  EXPECT_EQ(x->as<float>()[7], 3.0F);
}

TEST(DeviceTable, AnUnknownNameIsRefusedWithTheKnownOnes) {
  const auto device = make_device("abacus", {});
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(device.error().message.find("abacus"), std::string::npos);
  EXPECT_NE(device.error().message.find("cpu"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(AllBackends, DeviceConformance, ::testing::ValuesIn(device_backends().begin(), device_backends().end()),
                         [](const auto& backend) { return std::string(backend.param.name); });

}  // namespace
}  // namespace lockstep::device
