#include "comm/nccl/agreement_choice.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <vector>

namespace lockstep::comm::nccl {

namespace {

/// The first ones connect peers and touch memory; the median of the others forgives a rank that was off its core in a few.
constexpr int kWarmUpRounds = 4;
constexpr int kRounds = 21;

Status time_one(Communicator& communicator, std::span<std::int32_t> values, const Deadline& deadline, Duration& took) {
  const TimePoint start = std::chrono::steady_clock::now();
  LOCKSTEP_ASSIGN_OR_RETURN(const Ticket ticket, communicator.start_all_reduce(values, ReduceOp::kSum));
  LOCKSTEP_RETURN_IF_ERROR(communicator.wait(ticket, values, deadline));
  took = std::chrono::steady_clock::now() - start;
  return {};
}

std::int32_t median_ns(std::vector<Duration>& times) {
  std::ranges::nth_element(times, times.begin() + kRounds / 2);
  return static_cast<std::int32_t>(std::min<std::int64_t>(times[kRounds / 2].count(), std::numeric_limits<std::int32_t>::max()));
}

}  // namespace

AgreementTransport choose_agreement(const AgreementTimes& times) {
  return times.host < times.device ? AgreementTransport::kHost : AgreementTransport::kDevice;
}

Result<AgreementTimes> measure_agreement(Communicator& host, Communicator& device, std::size_t values, const Deadline& deadline) {
  std::vector<std::int32_t> matrix(values, 0);
  std::vector<Duration> host_times;
  std::vector<Duration> device_times;
  for (int round = 0; round < kWarmUpRounds + kRounds; ++round) {
    Duration took{0};
    // In turn, so that what disturbs the machine disturbs both.
    LOCKSTEP_RETURN_IF_ERROR(time_one(host, matrix, deadline, took));
    if (round >= kWarmUpRounds) {
      host_times.push_back(took);
    }
    LOCKSTEP_RETURN_IF_ERROR(time_one(device, matrix, deadline, took));
    if (round >= kWarmUpRounds) {
      device_times.push_back(took);
    }
  }
  const std::array<std::int32_t, 2> ours{median_ns(host_times), median_ns(device_times)};
  std::array<std::int32_t, 2> slowest{};
  // A rank's own numbers would send ranks different ways, and the group would hang in its first step.
  LOCKSTEP_ASSIGN_OR_RETURN(const Ticket ticket, host.start_all_reduce(ours, ReduceOp::kMax));
  LOCKSTEP_RETURN_IF_ERROR(host.wait(ticket, slowest, deadline));
  return AgreementTimes{.host = Duration(slowest[0]), .device = Duration(slowest[1])};
}

}  // namespace lockstep::comm::nccl
