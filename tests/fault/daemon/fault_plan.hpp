// FaultPlan: which fault this rank of a test daemon has, and the gate by which the test's driver times it.
#pragma once

#include <string>

#include "lockstep/comm/launch.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::tests {

/// LOCKSTEP_TEST_FAULT's values are fault_name()'s.
enum class Fault {
  kNone,
  kHoldBeforeCommunicator,
  kHoldBeforeLoad,
  kHoldInAgreement,
  kHoldInDispatch,
  kHoldBeforeFinalize,    ///< when the group has agreed to end and said goodbye
  kOtherProtocolVersion,  ///< in the handshake
  kOtherStep,             ///< from here on in the column that this rank gives to an agreement
  kOtherStepHigh,
  kOtherEpoch,
  kOtherConfigHash,
  kOtherTokens,
  kMoreRows,       ///< in the header of a dispatch: more rows than were agreed
  kLongerMessage,  ///< a dispatch of more bytes than the receivers made room for
};
[[nodiscard]] std::string_view fault_name(Fault fault);

/// A named pipe between the driver and one rank. Both ends block, nobody polls: who is held reads until the driver closes its end.
/// Threads  the step thread's.
class Gate {
 public:
  /// Errors  kInvalidArgument: there is no such pipe.
  [[nodiscard]] static Result<Gate> open(const std::string& path);
  ~Gate();
  Gate(Gate&& other) noexcept;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  Gate& operator=(Gate&&) = delete;

  /// True from the time when the driver has written a byte.
  [[nodiscard]] bool armed();
  /// Blocks until the driver has opened the pipe and closed it again.
  void hold() const;

 private:
  Gate(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

  std::string path_;
  int descriptor_;
  bool armed_ = false;
};

/// LOCKSTEP_TEST_FAULT, on the rank LOCKSTEP_TEST_FAULT_RANK only; LOCKSTEP_TEST_GATE is the pipe's path. Not set: no fault.
struct FaultPlan {
  Fault fault = Fault::kNone;
  std::string gate;

  /// Errors  kInvalidArgument: an unknown fault or rank, or no gate.
  [[nodiscard]] static Result<FaultPlan> read(const comm::EnvironmentReader& environment, int rank);
};

}  // namespace lockstep::tests
