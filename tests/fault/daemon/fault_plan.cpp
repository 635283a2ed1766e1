#include "tests/fault/daemon/fault_plan.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

namespace lockstep::tests {
namespace {

constexpr std::array kFaults{
    std::pair{Fault::kNone, "none"},
    std::pair{Fault::kHoldBeforeCommunicator, "hold_before_communicator"},
    std::pair{Fault::kHoldBeforeLoad, "hold_before_load"},
    std::pair{Fault::kHoldInAgreement, "hold_in_agreement"},
    std::pair{Fault::kHoldInDispatch, "hold_in_dispatch"},
    std::pair{Fault::kHoldBeforeFinalize, "hold_before_finalize"},
    std::pair{Fault::kOtherProtocolVersion, "other_protocol_version"},
    std::pair{Fault::kOtherStep, "other_step"},
    std::pair{Fault::kOtherStepHigh, "other_step_high"},
    std::pair{Fault::kOtherEpoch, "other_epoch"},
    std::pair{Fault::kOtherConfigHash, "other_config_hash"},
    std::pair{Fault::kOtherTokens, "other_tokens"},
    std::pair{Fault::kMoreRows, "more_rows"},
    std::pair{Fault::kLongerMessage, "longer_message"},
};

}  // namespace

std::string_view fault_name(Fault fault) {
  const auto* const found = std::ranges::find(kFaults, fault, &std::pair<Fault, const char*>::first);
  return found == kFaults.end() ? "unknown" : found->second;
}

Result<Gate> Gate::open(const std::string& path) {
  // Without blocking: the driver opens its end only when it wants something.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (descriptor < 0) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("LOCKSTEP_TEST_GATE: {} cannot be opened: {}; expected a named pipe", path, std::strerror(errno))};
  }
  return Gate(path, descriptor);
}

Gate::Gate(Gate&& other) noexcept : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), armed_(other.armed_) {}

Gate::~Gate() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

bool Gate::armed() {
  char byte = 0;
  armed_ = armed_ || ::read(descriptor_, &byte, 1) == 1;
  return armed_;
}

void Gate::hold() const {
  // A second, blocking descriptor: opening waits for the driver, reading ends when it has closed its end.
  const int blocking = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  char byte = 0;
  while (blocking >= 0) {
    const ssize_t count = ::read(blocking, &byte, 1);
    if (count == 0 || (count < 0 && errno != EINTR)) {
      break;
    }
  }
  ::close(blocking);
}

Result<FaultPlan> FaultPlan::read(const comm::EnvironmentReader& environment, int rank) {
  const std::string name = environment("LOCKSTEP_TEST_FAULT").value_or("none");
  const auto* const found = std::ranges::find_if(kFaults, [&name](const auto& line) { return name == line.second; });
  if (found == kFaults.end()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("LOCKSTEP_TEST_FAULT: unknown fault \"{}\"", name)};
  }
  if (found->first == Fault::kNone || environment("LOCKSTEP_TEST_FAULT_RANK") != std::to_string(rank)) {
    return FaultPlan{};
  }
  const std::string gate = environment("LOCKSTEP_TEST_GATE").value_or("");
  if (gate.empty()) {
    return Error{ErrorCode::kInvalidArgument, "LOCKSTEP_TEST_GATE: a fault needs the path of a named pipe"};
  }
  return FaultPlan{.fault = found->first, .gate = gate};
}

}  // namespace lockstep::tests
