// What Python's str methods do, for methods and filters alike.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"
#include "model/chat_template/values/budget.hpp"

namespace lockstep::model::chat {

enum class Side { kLeft, kRight, kBoth };
/// Strips whitespace, or the code points of `characters` where given.
[[nodiscard]] std::string_view strip_text(std::string_view text, std::optional<std::string_view> characters, Side side);
/// Errors  kInvalidArgument: the result would be too large.      `count` < 0: all.
[[nodiscard]] Result<std::string> replace_text(Budget& budget, std::string_view text, std::string_view old_part, std::string_view new_part, std::int64_t count);
/// At most `count` splits (< 0: all), from the left or the right. Without a separator, at runs of whitespace, and no empty pieces.
[[nodiscard]] std::vector<std::string_view> split_text(std::string_view text, std::optional<std::string_view> separator, std::int64_t count, Side side);
/// At every line break that Python knows; none behind the last one.
[[nodiscard]] std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
/// Not overlapping; of an empty part, one more than the code points.
[[nodiscard]] std::int64_t count_parts(std::string_view text, std::string_view part);

}  // namespace lockstep::model::chat
