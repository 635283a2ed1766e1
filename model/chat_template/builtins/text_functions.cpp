#include "model/chat_template/builtins/text_functions.hpp"

#include <algorithm>

#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

bool is_line_break(char32_t value) {
  return (value >= 0x0A && value <= 0x0D) || (value >= 0x1C && value <= 0x1E) || value == 0x85 || value == 0x2028 || value == 0x2029;
}

std::string_view last_code_point(std::string_view text) {
  std::size_t start = text.size() - 1;
  while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0U) == 0x80U) {
    --start;
  }
  return text.substr(start);
}

std::vector<std::string_view> split_whitespace(std::string_view text, std::int64_t count, Side side) {
  std::vector<std::string_view> result;
  if (side == Side::kLeft) {
    text = strip_left(text);
    while (!text.empty() && (count < 0 || static_cast<std::int64_t>(result.size()) < count)) {
      std::size_t end = 0;
      while (end < text.size() && !is_space(first_code_point(text.substr(end)).value)) {
        end += first_code_point(text.substr(end)).bytes;
      }
      result.push_back(text.substr(0, end));
      text = strip_left(text.substr(end));
    }
    if (!text.empty()) {
      result.push_back(text);
    }
    return result;
  }
  text = strip_right(text);
  while (!text.empty() && (count < 0 || static_cast<std::int64_t>(result.size()) < count)) {
    std::size_t start = text.size();
    while (start > 0 && !is_space(first_code_point(last_code_point(text.substr(0, start))).value)) {
      start -= last_code_point(text.substr(0, start)).size();
    }
    result.push_back(text.substr(start));
    text = strip_right(text.substr(0, start));
  }
  if (!text.empty()) {
    result.push_back(text);
  }
  std::ranges::reverse(result);
  return result;
}

}  // namespace

std::string_view strip_text(std::string_view text, std::optional<std::string_view> characters, Side side) {
  const std::vector<std::string_view> set = characters ? split_code_points(*characters) : std::vector<std::string_view>{};
  const auto goes = [&](std::string_view point) { return characters ? std::ranges::find(set, point) != set.end() : is_space(first_code_point(point).value); };
  if (side != Side::kRight) {
    while (!text.empty() && goes(text.substr(0, first_code_point(text).bytes))) {
      text.remove_prefix(first_code_point(text).bytes);
    }
  }
  if (side != Side::kLeft) {
    while (!text.empty() && goes(last_code_point(text))) {
      text.remove_suffix(last_code_point(text).size());
    }
  }
  return text;
}

Result<std::string> replace_text(Budget& budget, std::string_view text, std::string_view old_part, std::string_view new_part, std::int64_t count) {
  std::string result;
  std::size_t position = 0;
  LOCKSTEP_RETURN_IF_ERROR(budget.step(text.size() / 64 + 1));
  for (std::int64_t done = 0; count < 0 || done < count; ++done) {
    if (old_part.empty()) {
      // Between all code points, before the first and behind the last.
      result += new_part;
      if (position == text.size()) {
        return result;
      }
      const std::size_t bytes = first_code_point(text.substr(position)).bytes;
      result += text.substr(position, bytes);
      position += bytes;
    } else {
      const std::size_t found = text.find(old_part, position);
      if (found == std::string_view::npos) {
        break;
      }
      result += text.substr(position, found - position);
      result += new_part;
      position = found + old_part.size();
    }
    if (result.size() > kTextBytesMax) {
      LOCKSTEP_RETURN_IF_ERROR(budget.allocate(result.size()));
    }
  }
  result += text.substr(position);
  return result;
}

std::vector<std::string_view> split_text(std::string_view text, std::optional<std::string_view> separator, std::int64_t count, Side side) {
  if (!separator) {
    return split_whitespace(text, count, side);
  }
  std::vector<std::string_view> result;
  while (count < 0 || static_cast<std::int64_t>(result.size()) < count) {
    const std::size_t found = side == Side::kLeft ? text.find(*separator) : text.rfind(*separator);
    if (found == std::string_view::npos) {
      break;
    }
    result.push_back(side == Side::kLeft ? text.substr(0, found) : text.substr(found + separator->size()));
    text = side == Side::kLeft ? text.substr(found + separator->size()) : text.substr(0, found);
  }
  result.push_back(text);
  if (side == Side::kRight) {
    std::ranges::reverse(result);
  }
  return result;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> result;
  std::size_t start = 0;
  std::size_t position = 0;
  while (position < text.size()) {
    const CodePoint point = first_code_point(text.substr(position));
    const std::size_t end = position;
    position += point.bytes;
    if (!is_line_break(point.value)) {
      continue;
    }
    if (point.value == '\r' && position < text.size() && text[position] == '\n') {
      ++position;
    }
    result.push_back(text.substr(start, (keep_ends ? position : end) - start));
    start = position;
  }
  if (start < text.size()) {
    result.push_back(text.substr(start));
  }
  return result;
}

std::int64_t count_parts(std::string_view text, std::string_view part) {
  if (part.empty()) {
    return static_cast<std::int64_t>(count_code_points(text)) + 1;
  }
  std::int64_t count = 0;
  for (std::size_t found = text.find(part); found != std::string_view::npos; found = text.find(part, found + part.size())) {
    ++count;
  }
  return count;
}

}  // namespace lockstep::model::chat
