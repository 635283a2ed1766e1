#include "lockstep/core/check.hpp"

#include <cstdio>
#include <cstdlib>

namespace lockstep {

void check_failed(std::string_view file, int line, std::string_view condition, std::string_view message) {
  fmt::print(stderr, "lockstep: check failed at {}:{}: {}: {}\n", file, line, condition, message);
  std::fflush(stderr);
  std::abort();
}

}  // namespace lockstep
