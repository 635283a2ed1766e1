#include "daemon/preflight/environment_checks.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <fstream>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "daemon/options/options.hpp"
#include "daemon/options/values/nearest_name.hpp"

namespace lockstep::daemon {

Status check_instruction_limit(const comm::EnvironmentReader& environment) {
  // oneDNN 2.6's, without those of Xeon Phi: it takes them for no limit on every other CPU.
  static const std::vector<std::string> kLimits{"SSE41",           "AVX", "AVX2",   "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16",
                                                "AVX512_CORE_AMX", "ALL", "DEFAULT"};
  for (const char* variable : {"DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA"}) {
    const std::string value = environment(variable).value_or("");
    std::string upper = value;  // oneDNN does not tell them apart
    std::ranges::transform(upper, upper.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    if (!value.empty() && std::ranges::find(kLimits, upper) == kLimits.end()) {
      const std::string nearest = nearest_name(upper, kLimits);
      return Error{ErrorCode::kInvalidArgument, fmt::format("{} is \"{}\", expected one of {}{}", variable, value, fmt::join(kLimits, ", "),
                                                            nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest))};
    }
  }
  return {};
}

void warn_of_unknown_variables(spdlog::logger& logger) {
  std::vector<std::string> names;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    names.emplace_back(text.substr(0, text.find('=')));
  }
  for (const UnknownVariable& variable : unknown_variables(names)) {
    logger.warn("{} is set, but no option has that name: it does nothing{}", variable.name,
                variable.nearest.empty() ? "" : fmt::format("; did you mean {}?", variable.nearest));
  }
}

std::int64_t host_memory_bytes() {
  std::int64_t bytes = std::int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE);
  std::ifstream limit("/sys/fs/cgroup/memory.max");  // "max", a number, or not there: then the read fails
  if (std::int64_t allowed = 0; limit >> allowed && allowed > 0) {
    bytes = std::min(bytes, allowed);
  }
  return bytes;
}

}  // namespace lockstep::daemon
