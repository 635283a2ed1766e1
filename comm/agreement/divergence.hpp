// How a difference between members is put into words: shared by the handshake and by decide().
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "lockstep/core/result.hpp"

namespace lockstep::comm {

enum class ValueFormat { kDecimal, kHex32, kHex64 };

[[nodiscard]] std::string format_value(std::int64_t value, ValueFormat format);

/// "members 0, 2, 3 have 0x2a, member 1 has 0x2b": members grouped by value, the largest group first; runs of three and more are written 4-4095.
/// Bounded: the first groups and runs, then how many were left out.
/// Shape  `values` [members].
[[nodiscard]] std::string describe_values(std::span<const std::int64_t> values, ValueFormat format);

/// kDiverged "<field> differs: <describe_values>; <advice>". Its rank is the first member outside the majority, none where no value has a majority.
[[nodiscard]] Error field_differs(std::string_view field, std::span<const std::int64_t> values, ValueFormat format, std::string_view advice);

}  // namespace lockstep::comm
