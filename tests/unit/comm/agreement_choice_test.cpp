// Goal    All ranks take the same transport for agreements: the device's, unless the hosts' was measured to be faster.
// Method  The rule by itself; the measurement over two local groups, which gives every rank the slowest one's times.
#include "comm/nccl/agreement_choice.hpp"

#include <array>
#include <chrono>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/comm/local_group.hpp"

namespace lockstep::comm::nccl {
namespace {

using std::chrono::microseconds;

TEST(AgreementChoice, IsTheHostsOnlyWhereItIsFaster) {
  EXPECT_EQ(choose_agreement({.host = microseconds(9), .device = microseconds(10)}), AgreementTransport::kHost);
  EXPECT_EQ(choose_agreement({.host = microseconds(10), .device = microseconds(10)}), AgreementTransport::kDevice);
  EXPECT_EQ(choose_agreement({.host = microseconds(11), .device = microseconds(10)}), AgreementTransport::kDevice);
}

TEST(AgreementChoice, EveryRankSeesTheSameTimes) {
  constexpr int kRanks = 3;
  LocalGroup host(kRanks);
  LocalGroup device(kRanks);
  std::array<AgreementTimes, kRanks> times;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      const auto measured = measure_agreement(*host.communicator(rank), *device.communicator(rank), 30, Deadline::after(std::chrono::seconds(60)));
      ASSERT_TRUE(measured) << measured.error().message;
      times.at(static_cast<std::size_t>(rank)) = *measured;
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const AgreementTimes& each : times) {
    EXPECT_GT(each.host.count(), 0);
    EXPECT_EQ(each.host, times[0].host);
    EXPECT_EQ(each.device, times[0].device);
  }
}

TEST(AgreementChoice, ALostRankEndsTheMeasurement) {
  LocalGroup host(2);
  LocalGroup device(2);
  device.mark_lost(1);
  const auto peer = host.communicator(1);
  std::thread other([&] { static_cast<void>(measure_agreement(*peer, *device.communicator(1), 30, Deadline::after(std::chrono::seconds(60)))); });
  const auto measured = measure_agreement(*host.communicator(0), *device.communicator(0), 30, Deadline::after(std::chrono::seconds(60)));
  other.join();
  ASSERT_FALSE(measured);
  EXPECT_EQ(measured.error().code, ErrorCode::kPeerLost);
}

}  // namespace
}  // namespace lockstep::comm::nccl
