// Goal    Every device backend gives memory as the interface says, and its ops compute; the table chooses among them and says why.
// Method  One suite over the table of backends. Memory is read and written by copies, as the interface says; only a host's may be looked into.
#include "lockstep/device/device.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/conformance/device/device_fixture.hpp"

namespace lockstep::device {
namespace {

class DeviceConformance : public DeviceFixture, public ::testing::WithParamInterface<DeviceBackend> {
 protected:
  void SetUp() override { open(GetParam()); }
};

TEST_P(DeviceConformance, TheNameIsThatOfTheTable) {
  EXPECT_EQ(device_->name(), GetParam().name);
  auto by_name = make_device(GetParam().name, test_device_options());
  ASSERT_TRUE(by_name) << by_name.error().message;
  EXPECT_EQ((*by_name)->name(), GetParam().name);
  EXPECT_EQ((*by_name)->host_memory(), GetParam().host_memory);
}

TEST_P(DeviceConformance, MemoryIsZeroedAlignedAndWritable) {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{63}, std::size_t{4096}, std::size_t{1} << 20U, (std::size_t{5} << 20U) + 3}) {
    const Buffer buffer = allocate(bytes);
    EXPECT_EQ(buffer.bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.as<void>()) % 64, 0U);
    std::vector<unsigned char> expected(bytes, 0);
    ASSERT_EQ(download<unsigned char>(buffer, bytes), expected);
    expected.front() = 1;
    expected.back() = 2;
    write(buffer, 0, std::as_bytes(std::span(expected).first(1)));
    write(buffer, bytes - 1, std::as_bytes(std::span(expected).last(1)));
    ASSERT_EQ(download<unsigned char>(buffer, bytes), expected);
  }
}

TEST_P(DeviceConformance, MemoryUsedBeforeIsZeroedAgain) {
  for (int round = 0; round < 3; ++round) {
    const Buffer buffer = allocate(1000);
    ASSERT_EQ(download<unsigned char>(buffer, 1000), std::vector<unsigned char>(1000, 0));
    write(buffer, 0, std::as_bytes(std::span<const unsigned char>(std::vector<unsigned char>(1000, 0xff))));
  }
}

TEST_P(DeviceConformance, MemoryOfTheHostIsZeroedAndBelongsToTheHost) {
  for (int round = 0; round < 3; ++round) {
    auto buffer = device_->allocate_host(1000);
    ASSERT_TRUE(buffer) << buffer.error().message;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer->as<void>()) % 64, 0U);
    for (std::size_t i = 0; i < 1000; ++i) {
      ASSERT_EQ(buffer->as<unsigned char>()[i], 0);
      buffer->as<unsigned char>()[i] = 0xff;
    }
  }
}

TEST_P(DeviceConformance, NoBytesAreABuffer) {
  auto buffer = device_->allocate(0);
  ASSERT_TRUE(buffer);
  EXPECT_EQ(buffer->bytes(), 0U);
  auto host_buffer = device_->allocate_host(0);
  ASSERT_TRUE(host_buffer);
  EXPECT_EQ(host_buffer->bytes(), 0U);
}

TEST_P(DeviceConformance, MoreMemoryThanThereIsIsAnErrorThatSaysHowMuch) {
  for (const std::size_t bytes : {std::size_t{1} << 60U, SIZE_MAX}) {
    const auto buffer = device_->allocate(bytes);
    ASSERT_FALSE(buffer);
    EXPECT_EQ(buffer.error().code, ErrorCode::kResourceExhausted);
    EXPECT_NE(buffer.error().message.find(std::to_string(bytes)), std::string::npos) << buffer.error().message;
    const auto host_buffer = device_->allocate_host(bytes);
    ASSERT_FALSE(host_buffer);
    EXPECT_EQ(host_buffer.error().code, ErrorCode::kResourceExhausted);
    EXPECT_NE(host_buffer.error().message.find(std::to_string(bytes)), std::string::npos) << host_buffer.error().message;
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
  EXPECT_FALSE(ops_->instruction_set().empty());
  const Buffer x = allocate(8 * sizeof(float));
  const Buffer ones = upload(std::vector<float>(8, 1.0F));
  for (int i = 0; i < 3; ++i) {
    run([&] { ops_->add(*stream_, ones.as<float>(), 8, x.as<float>()); });
  }
  EXPECT_EQ(download<float>(x, 8), std::vector<float>(8, 3.0F));
}

TEST_P(DeviceConformance, AnEventOrdersTheOpsOfTwoStreams) {
  auto made = device_->make_stream("second", StreamPriority::kHigh);
  ASSERT_TRUE(made) << made.error().message;
  Stream& second = **made;
  const auto first_done = device_->make_event();
  const auto second_done = device_->make_event();
  constexpr std::size_t kCount = 1000;
  const Buffer x = allocate(kCount * sizeof(float));
  const Buffer y = upload(std::vector<float>(kCount, 1.0F));
  // Each stream adds to what the other one reads: without the events the powers of two would not come out.
  for (int i = 0; i < 10; ++i) {
    stream_->wait_for(*second_done);
    stream_->enqueue([this, &x, &y]() -> Status {
      ops_->add(*stream_, y.as<float>(), kCount, x.as<float>());
      return {};
    });
    stream_->record(*first_done);
    second.wait_for(*first_done);
    second.enqueue([this, &second, &x, &y]() -> Status {
      ops_->add(second, x.as<float>(), kCount, y.as<float>());
      return {};
    });
    second.record(*second_done);
  }
  ASSERT_TRUE(second_done->wait(patience()));
  // x, y = 0, 1 and then x += y, y += x: every second Fibonacci number.
  EXPECT_EQ(download<float>(x, kCount), std::vector<float>(kCount, 6765.0F));
  EXPECT_EQ(download<float>(y, kCount), std::vector<float>(kCount, 10946.0F));
}

TEST(DeviceTable, AnUnknownNameIsRefusedWithTheKnownOnes) {
  const auto device = make_device("abacus", {});
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(device.error().message.find("abacus"), std::string::npos);
  EXPECT_NE(device.error().message.find("cpu"), std::string::npos);
}

const std::string kNowhere = (std::filesystem::temp_directory_path() / "no-plugins-here").string();

TEST(DeviceTable, AutoTakesTheHostAndSaysWhyNothingBetter) {
  const auto choice = choose_device(kAutoDevice, {.plugin_folder = kNowhere});
  ASSERT_TRUE(choice) << choice.error().message;
  EXPECT_EQ(choice->backend->name, "cpu");
  EXPECT_NE(choice->note.find("computing on cpu: cuda: "), std::string::npos) << choice->note;
  EXPECT_NE(choice->note.find(kNowhere), std::string::npos) << choice->note;
}

TEST(DeviceTable, ANamedDeviceThatCannotBeUsedIsRefused) {
  const auto choice = choose_device("cuda", {.plugin_folder = kNowhere});
  ASSERT_FALSE(choice);
  EXPECT_EQ(choice.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(choice.error().message.find("--device cuda: "), std::string::npos) << choice.error().message;
  EXPECT_NE(choice.error().message.find(kNowhere), std::string::npos) << choice.error().message;
}

TEST(DeviceTable, TheHostIsTakenWithoutAWord) {
  const auto choice = choose_device("cpu", {.plugin_folder = kNowhere});
  ASSERT_TRUE(choice) << choice.error().message;
  EXPECT_EQ(choice->backend->name, "cpu");
  EXPECT_EQ(choice->note, "");
}

INSTANTIATE_TEST_SUITE_P(AllBackends, DeviceConformance, ::testing::ValuesIn(device_backends().begin(), device_backends().end()),
                         [](const auto& backend) { return std::string(backend.param.name); });

}  // namespace
}  // namespace lockstep::device
