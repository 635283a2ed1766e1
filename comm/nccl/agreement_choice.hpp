// Which communicator carries the agreement's all-reduce: the device's, or the host's where it is measured to be faster.
#pragma once

#include <cstddef>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm::nccl {

/// What one all-reduce took, the slowest rank's median.
struct AgreementTimes {
  Duration host{0};
  Duration device{0};
};

/// The host's only where it is faster: at a tie the device's, which leaves the host's cores alone.
[[nodiscard]] AgreementTransport choose_agreement(const AgreementTimes& times);

/// Times all-reduces of `values` int32 over both, in turn, and makes the ranks agree on what they saw: all get the same times. Collective.
/// Errors  those of both communicators' wait.      Cost    a few dozen all-reduces.
[[nodiscard]] Result<AgreementTimes> measure_agreement(Communicator& host, Communicator& device, std::size_t values, const Deadline& deadline);

}  // namespace lockstep::comm::nccl
