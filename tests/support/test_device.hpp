// The device that tests of whole engines compute on: the host, unless the environment names another one, as the entries of tests/cuda_sim do.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/forward_context.hpp"

namespace lockstep::tests {

inline std::string test_variable(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

/// LOCKSTEP_TEST_DEVICE, else "cpu".
inline std::string test_device_name() {
  return test_variable("LOCKSTEP_TEST_DEVICE", "cpu");
}

/// LOCKSTEP_TEST_GRAPHS: the most that steps of decodes are launched as, on devices with graphs; else kNone.
inline GraphMode test_graph_mode() {
  const std::string wanted = test_variable("LOCKSTEP_TEST_GRAPHS", "none");
  for (const auto& [name, mode] : {std::pair{"none", GraphMode::kNone}, std::pair{"piecewise", GraphMode::kPiecewise}, std::pair{"full", GraphMode::kFull}}) {
    if (wanted == name) {
      return mode;
    }
  }
  LOCKSTEP_CHECK(false, "LOCKSTEP_TEST_GRAPHS is \"{}\", expected none, piecewise or full", wanted);
}

/// What CTest takes for a skipped test where it is told to, and for a failed one elsewhere.
inline constexpr int kSkippedStatus = 77;

/// One for each rank of a test's process, its plugin from LOCKSTEP_TEST_PLUGINS; where it is no host they share one, as other tests' processes do.
/// Ends the process with kSkippedStatus where there is no such device.
inline std::unique_ptr<device::Device> make_test_device(std::string_view name, int rank, bool batch_invariant = true) {
  Result<std::unique_ptr<device::Device>> device = device::make_device(name, {.local_rank = rank,
                                                                              .core_count = 1,
                                                                              .share_device = true,
                                                                              .batch_invariant = batch_invariant,
                                                                              .plugin_folder = test_variable("LOCKSTEP_TEST_PLUGINS", "")});
  if (!device) {
    fmt::print(stderr, "make_device: {}\n", device.error().message);
    std::_Exit(kSkippedStatus);
  }
  return std::move(*device);
}

}  // namespace lockstep::tests
