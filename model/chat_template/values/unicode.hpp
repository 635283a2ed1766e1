// Code points of UTF-8 text: what Python's str counts in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::model::chat {

/// All functions here take valid UTF-8: sources and inputs are checked at the border.
struct CodePoint {
  char32_t value = 0;
  std::size_t bytes = 1;
};

/// The first code point; `text` must not be empty.
[[nodiscard]] CodePoint first_code_point(std::string_view text);
void append_code_point(char32_t value, std::string& out);
[[nodiscard]] std::size_t count_code_points(std::string_view text);
/// Byte offset of the code point `index`; text.size() beyond the end.
[[nodiscard]] std::size_t byte_offset(std::string_view text, std::size_t index);
/// Each code point as a view.
[[nodiscard]] std::vector<std::string_view> split_code_points(std::string_view text);

/// str.isspace of one code point.      Source  Python 3 documentation: whitespace is what Unicode calls WS, B or S in bidirectional class, or category Zs.
[[nodiscard]] bool is_space(char32_t value);
[[nodiscard]] std::string_view strip_left(std::string_view text);
[[nodiscard]] std::string_view strip_right(std::string_view text);

enum class LetterCase { kLower, kUpper, kTitle };
/// One code point in another case, one to one. Letters whose other case is several letters (as U+00DF) stay what they are.
[[nodiscard]] char32_t with_case(char32_t value, LetterCase letter_case);
[[nodiscard]] std::string lower_text(std::string_view text);
[[nodiscard]] std::string upper_text(std::string_view text);
[[nodiscard]] std::string capitalize_text(std::string_view text);
/// Python's str.title: each run of cased letters begins with a capital.
[[nodiscard]] std::string title_text(std::string_view text);
[[nodiscard]] bool is_cased(char32_t value);
[[nodiscard]] bool is_letter(char32_t value);
/// Whether repr() shows it as it is.
[[nodiscard]] bool is_printable(char32_t value);

}  // namespace lockstep::model::chat
