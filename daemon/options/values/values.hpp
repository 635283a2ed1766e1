// Reading the values of options: numbers, sizes, durations.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lockstep/core/deadline.hpp"

namespace lockstep::daemon {

/// A whole decimal number within [low, high]; nothing before or after it.
[[nodiscard]] std::optional<std::int64_t> read_integer(std::string_view text, std::int64_t low, std::int64_t high);
/// A decimal number of at most 64 bits.
[[nodiscard]] std::optional<std::uint64_t> read_unsigned(std::string_view text);
/// Bytes, or with K, M, G or T (also KiB and the like): multiples of 1024. At least 1.
[[nodiscard]] std::optional<std::int64_t> read_byte_size(std::string_view text);
/// Seconds, or with ms, s, m or h; fractions are allowed. At least 1 ms, at most 30 days.
[[nodiscard]] std::optional<Duration> read_duration(std::string_view text);

/// Of a number that the one above of the same name does not take, the nearest value that it takes; "" when `text` is no number of that form.
[[nodiscard]] std::string nearest_integer(std::string_view text, std::int64_t low, std::uint64_t high);
[[nodiscard]] std::string nearest_byte_size(std::string_view text);
[[nodiscard]] std::string nearest_duration(std::string_view text);
/// The nearest of the numbers among `choices`; "" when there is none, or `text` is no number.
[[nodiscard]] std::string nearest_number(std::string_view text, std::span<const std::string> choices);

/// true, yes, on or 1; false, no, off or 0.
[[nodiscard]] std::optional<bool> read_boolean(std::string_view text);

}  // namespace lockstep::daemon
