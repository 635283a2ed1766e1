#include "tests/cuda_sim/runtime/settings.hpp"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>

#include "tests/cuda_sim/violation.hpp"

namespace cuda_sim {
namespace {

std::string variable(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

SchedulePolicy policy_named(const std::string& name) {
  if (name == "early") {
    return SchedulePolicy::kEarly;
  }
  if (name == "late") {
    return SchedulePolicy::kLate;
  }
  if (name == "random") {
    return SchedulePolicy::kRandom;
  }
  violation("LOCKSTEP_SIM_SCHEDULE is \"" + name + "\", expected early, late or random");
}

Settings read_settings() {
  Settings settings;
  settings.policy = policy_named(variable("LOCKSTEP_SIM_SCHEDULE", "random"));
  settings.seed = std::strtoull(variable("LOCKSTEP_SIM_SEED", "1").c_str(), nullptr, 10);
  settings.memory_bytes = std::strtoull(variable("LOCKSTEP_SIM_MEMORY", "4294967296").c_str(), nullptr, 10);
  settings.machine = variable("LOCKSTEP_SIM_MACHINE", "sim");
  const std::string devices = variable("LOCKSTEP_SIM_DEVICES", "1");
  settings.has_driver = devices != "no-driver";
  settings.device_count = static_cast<int>(std::strtol(devices.c_str(), nullptr, 10));
  if (const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES"); visible != nullptr) {
    // The first ones of a list: the simulated devices are alike.
    const std::string_view list(visible);
    const int named = list.empty() ? 0 : static_cast<int>(std::ranges::count(list, ',')) + 1;
    settings.device_count = std::min(settings.device_count, named);
  }
  return settings;
}

}  // namespace

const Settings& settings() {
  static const Settings kSettings = read_settings();
  return kSettings;
}

}  // namespace cuda_sim
