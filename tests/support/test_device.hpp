// The device that tests of whole engines compute on: the host, unless the environment names another one, as the entries of tests/cuda_sim do.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "lockstep/core/check.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::tests {

inline std::string test_variable(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

/// LOCKSTEP_TEST_DEVICE, else "cpu".
inline std::string test_device_name() {
  return test_variable("LOCKSTEP_TEST_DEVICE", "cpu");
}

/// One for each rank of a test's process, its plugin from LOCKSTEP_TEST_PLUGINS; where it is no host they share one, as other tests' processes do.
inline std::unique_ptr<device::Device> make_test_device(std::string_view name, int rank) {
  Result<std::unique_ptr<device::Device>> device =
      device::make_device(name, {.local_rank = rank, .core_count = 1, .share_device = true, .plugin_folder = test_variable("LOCKSTEP_TEST_PLUGINS", "")});
  LOCKSTEP_CHECK(device.has_value(), "make_device: {}", device.error().message);
  return std::move(*device);
}

}  // namespace lockstep::tests
