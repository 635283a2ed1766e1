// Goal    Blocks of the devices' memory arrive where they belong, between other operations in flight, on every backend that has them.
// Method  Bytes tell sender, receiver and round apart; each rank has a device of the table beside its communicator.
#include "lockstep/comm/device_collectives.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "lockstep/comm/device_messages.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/device/graph.hpp"
#include "tests/conformance/comm/rank_runner.hpp"

namespace lockstep::comm::testing {
namespace {

constexpr int kToAll = 1000;  ///< as the destination of an all-gather's block
constexpr std::byte kNothing{0xee};

/// A rank's device with a stream, and blocks in its memory.
class Blocks {
 public:
  Blocks(Communicator& communicator, DeviceCollectives& collectives, std::size_t bytes)
      : collectives_(collectives), rank_(communicator.rank()), size_(communicator.size()), bytes_(bytes) {
    auto device = device::make_device("cuda", {.local_rank = rank_, .local_size = size_, .share_device = true, .plugin_folder = LOCKSTEP_TEST_PLUGINS});
    EXPECT_TRUE(device) << device.error().message;
    device_ = std::move(*device);
    ops_ = std::move(*device_->make_ops());
    stream_ = device_->make_inline_stream("blocks");
    const std::size_t all = std::max<std::size_t>(1, bytes_ * static_cast<std::size_t>(size_));
    send_ = std::move(*device_->allocate(all));
    receive_ = std::move(*device_->allocate(all));
    host_ = std::move(*device_->allocate_host(all));
  }
  [[nodiscard]] device::Device& device() { return *device_; }
  [[nodiscard]] device::Stream& stream() { return *stream_; }
  [[nodiscard]] DeviceBlocks blocks() const {
    return {.stream = stream_.get(), .send = send_.as<std::byte>(), .receive = receive_.as<std::byte>(), .bytes = bytes_};
  }

  /// What this rank sends from now on.
  void fill(bool to_all, int round) {
    for (int peer = 0; peer < (to_all ? 1 : size_); ++peer) {
      copy_in(message_bytes(rank_, to_all ? kToAll : peer, bytes_, round), peer);
    }
    upload(send_);
  }
  void clear() {
    std::memset(host_.as<void>(), static_cast<int>(kNothing), host_.bytes());
    upload(receive_);
  }
  void expect_received(bool to_all, int round) {
    download();
    for (int source = 0; source < size_; ++source) {
      const std::vector<std::byte> expected = message_bytes(source, to_all ? kToAll : rank_, bytes_, round);
      const std::byte* const block = host_.as<std::byte>() + static_cast<std::size_t>(source) * bytes_;
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), block)) << "rank " << rank_ << ": " << bytes_ << " bytes from rank " << source << " differ";
    }
  }
  void expect_untouched() {
    download();
    const auto* const first = host_.as<std::byte>();
    EXPECT_TRUE(std::all_of(first, first + bytes_ * static_cast<std::size_t>(size_), [](std::byte byte) { return byte == kNothing; }));
  }
  void exchange(bool to_all) {
    const Status done = to_all ? collectives_.all_gather(blocks(), patient()) : collectives_.all_to_all(blocks(), patient());
    ASSERT_TRUE(done) << done.error().message;
  }
  /// The exchange as a graph, and what a launch of it moves.
  void capture(bool to_all) {
    Result<std::unique_ptr<device::Graph>> graph = device_->graphs()->capture(*stream_, [this, to_all]() -> Status {
      exchange(to_all);
      return {};
    });
    ASSERT_TRUE(graph) << graph.error().message;
    graph_ = std::move(*graph);
    moved_ = collectives_.take_captured();
  }
  void launch() {
    const Status launched = collectives_.launch(*graph_, moved_, *stream_, patient());
    ASSERT_TRUE(launched) << launched.error().message;
  }

 private:
  void copy_in(const std::vector<std::byte>& bytes, int block) {
    std::copy(bytes.begin(), bytes.end(), host_.as<std::byte>() + static_cast<std::size_t>(block) * bytes_);
  }
  void upload(const device::Buffer& buffer) {
    ops_->upload(*stream_, host_.as<void>(), host_.bytes(), buffer.as<void>());
    synchronize();  // the host's memory is filled again
  }
  void download() {
    ops_->download(*stream_, receive_.as<void>(), host_.bytes(), host_.as<void>());
    synchronize();
  }
  void synchronize() {
    const Status done = stream_->synchronize(patient());
    ASSERT_TRUE(done) << done.error().message;
  }

  DeviceCollectives& collectives_;
  const int rank_;
  const int size_;
  const std::size_t bytes_;
  std::unique_ptr<device::Device> device_;
  std::unique_ptr<device::Ops> ops_;
  std::unique_ptr<device::Stream> stream_;
  device::Buffer send_;
  device::Buffer receive_;
  device::Buffer host_;
  std::unique_ptr<device::Graph> graph_;
  DeviceTraffic moved_;
};

/// Null where the backend has none.
DeviceCollectives* collectives_of(Communicator& communicator) {
  DeviceMessages* const messages = communicator.device_messages();
  if (messages == nullptr) {
    return nullptr;
  }
  const Result<DeviceCollectives*> opened = messages->open_collectives(patient());
  EXPECT_TRUE(opened) << opened.error().message;
  return *opened;
}

bool has_device_buffers(const std::string& name) {
  return std::ranges::any_of(comm_backends(), [&](const CommBackend& backend) { return backend.name == name && backend.device_buffers; });
}

class DeviceCollectivesConformance : public ::testing::TestWithParam<GroupCase> {};

TEST_P(DeviceCollectivesConformance, AreThereAsTheTableSaysAndMadeOnce) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    DeviceCollectives* const collectives = collectives_of(communicator);
    EXPECT_EQ(collectives != nullptr, has_device_buffers(GetParam().backend));
    EXPECT_EQ(collectives_of(communicator), collectives);
  });
}

TEST_P(DeviceCollectivesConformance, BlocksOfEverySizeArriveAndAreCounted) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    DeviceCollectives* const collectives = collectives_of(communicator);
    if (collectives == nullptr) {
      return;
    }
    const auto others = static_cast<std::uint64_t>(communicator.size() - 1);
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{37}, std::size_t{70000}}) {
      Blocks blocks(communicator, *collectives, bytes);
      for (const bool to_all : {true, false}) {
        const DeviceTraffic before = communicator.device_traffic();
        blocks.clear();
        blocks.fill(to_all, 3);
        blocks.exchange(to_all);
        blocks.expect_received(to_all, 3);
        const DeviceTraffic after = communicator.device_traffic();
        EXPECT_EQ(after.sent_bytes - before.sent_bytes, to_all ? bytes : others * bytes);
        EXPECT_EQ(after.received_bytes - before.received_bytes, others * bytes);
      }
    }
  });
}

TEST_P(DeviceCollectivesConformance, BlocksTravelAmongOtherOperationsInFlight) {
  const Exchange::Sizes sizes = [](int source, int destination) { return static_cast<std::size_t>(40000 + source * 11 + destination); };
  run_as_every_rank(GetParam(), [&](Communicator& communicator) {
    DeviceCollectives* const collectives = collectives_of(communicator);
    if (collectives == nullptr) {
      return;
    }
    Blocks blocks(communicator, *collectives, 300);
    for (int round = 0; round < 6; ++round) {
      const std::int32_t value = round;
      const Result<Ticket> sum = communicator.start_all_reduce(std::span(&value, 1), ReduceOp::kSum);
      ASSERT_TRUE(sum) << sum.error().message;
      Exchange exchange(communicator, sizes, sizes, round);
      const Result<Ticket> messages = communicator.start_all_to_all(exchange.spans());
      ASSERT_TRUE(messages) << messages.error().message;
      blocks.fill(round % 2 == 0, round);
      blocks.exchange(round % 2 == 0);
      std::int32_t total = -1;
      const Status reduced = communicator.wait(*sum, std::span(&total, 1), patient());
      ASSERT_TRUE(reduced) << reduced.error().message;
      EXPECT_EQ(total, round * communicator.size());
      exchange.wait_and_expect(communicator, *messages);
      blocks.expect_received(round % 2 == 0, round);
    }
  });
}

TEST_P(DeviceCollectivesConformance, AGraphMovesTheBlocksOfEachLaunchAndIsCountedThen) {
  run_as_every_rank(GetParam(), [](Communicator& communicator) {
    DeviceCollectives* const collectives = collectives_of(communicator);
    if (collectives == nullptr) {
      return;
    }
    constexpr std::size_t kBytes = 300;
    const auto others = static_cast<std::uint64_t>(communicator.size() - 1);
    for (const bool to_all : {true, false}) {
      Blocks blocks(communicator, *collectives, kBytes);
      blocks.fill(to_all, 0);
      blocks.exchange(to_all);
      blocks.clear();
      const DeviceTraffic before = communicator.device_traffic();
      blocks.capture(to_all);
      blocks.expect_untouched();
      EXPECT_EQ(communicator.device_traffic().received_bytes, before.received_bytes);
      for (int round = 1; round <= 3; ++round) {
        blocks.clear();
        blocks.fill(to_all, round);
        blocks.launch();
        blocks.expect_received(to_all, round);
        const DeviceTraffic after = communicator.device_traffic();
        EXPECT_EQ(after.sent_bytes - before.sent_bytes, static_cast<std::uint64_t>(round) * (to_all ? kBytes : others * kBytes));
        EXPECT_EQ(after.received_bytes - before.received_bytes, static_cast<std::uint64_t>(round) * others * kBytes);
      }
    }
  });
}

TEST_P(DeviceCollectivesConformance, GraphsAreLaunchedAmongOtherOperationsWhicheverIsWaitedForFirst) {
  const Exchange::Sizes sizes = [](int source, int destination) { return static_cast<std::size_t>(40000 + source * 11 + destination); };
  run_as_every_rank(GetParam(), [&](Communicator& communicator) {
    DeviceCollectives* const collectives = collectives_of(communicator);
    if (collectives == nullptr) {
      return;
    }
    Blocks blocks(communicator, *collectives, 300);
    blocks.fill(true, 0);
    blocks.exchange(true);
    blocks.capture(true);
    for (int round = 1; round < 6; ++round) {
      blocks.fill(true, round);
      Exchange exchange(communicator, sizes, sizes, round);
      const Result<Ticket> messages = communicator.start_all_to_all(exchange.spans());
      ASSERT_TRUE(messages) << messages.error().message;
      blocks.launch();
      const std::int32_t value = round;
      const Result<Ticket> sum = communicator.start_all_reduce(std::span(&value, 1), ReduceOp::kSum);
      ASSERT_TRUE(sum) << sum.error().message;
      if (communicator.rank() % 2 == 0) {
        blocks.expect_received(true, round);
      }
      std::int32_t total = -1;
      const Status reduced = communicator.wait(*sum, std::span(&total, 1), patient());
      ASSERT_TRUE(reduced) << reduced.error().message;
      EXPECT_EQ(total, round * communicator.size());
      exchange.wait_and_expect(communicator, *messages);
      blocks.expect_received(true, round);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Backends, DeviceCollectivesConformance, ::testing::ValuesIn(group_cases()), case_name);

}  // namespace
}  // namespace lockstep::comm::testing
