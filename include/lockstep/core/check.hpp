// LOCKSTEP_CHECK: assertions about our own bugs, on in release builds too.
#pragma once

#include <string_view>

#include <fmt/format.h>

namespace lockstep {

/// Writes the failed condition, place and values to standard error and aborts.
[[noreturn]] void check_failed(std::string_view file, int line, std::string_view condition, std::string_view message);

}  // namespace lockstep

/// For our own bugs only, never for what a client, peer, file or driver sent: those get an Error.
/// `LOCKSTEP_CHECK(rows <= capacity, "rank {}: {} rows, capacity {}", rank, rows, capacity);`
#define LOCKSTEP_CHECK(condition, ...)                                                      \
  do {                                                                                      \
    if (!(condition)) [[unlikely]] {                                                        \
      ::lockstep::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
    }                                                                                       \
  } while (false)
