#include "model/chat_template/values/unicode.hpp"

#include <utility>

#include <utf8proc.h>

namespace lockstep::model::chat {

CodePoint first_code_point(std::string_view text) {
  const auto byte = [&](std::size_t index) { return index < text.size() ? static_cast<unsigned char>(text[index]) : 0U; };
  const char32_t lead = byte(0);
  if (lead < 0x80) {
    return {.value = lead, .bytes = 1};
  }
  if (lead < 0xE0) {
    return {.value = ((lead & 0x1FU) << 6U) | (byte(1) & 0x3FU), .bytes = 2};
  }
  if (lead < 0xF0) {
    return {.value = ((lead & 0x0FU) << 12U) | ((byte(1) & 0x3FU) << 6U) | (byte(2) & 0x3FU), .bytes = 3};
  }
  return {.value = ((lead & 0x07U) << 18U) | ((byte(1) & 0x3FU) << 12U) | ((byte(2) & 0x3FU) << 6U) | (byte(3) & 0x3FU), .bytes = 4};
}

void append_code_point(char32_t value, std::string& out) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
  if (value < 0x80) {
    put(value);
  } else if (value < 0x800) {
    put(0xC0U | (value >> 6U));
    put(0x80U | (value & 0x3FU));
  } else if (value < 0x10000) {
    put(0xE0U | (value >> 12U));
    put(0x80U | ((value >> 6U) & 0x3FU));
    put(0x80U | (value & 0x3FU));
  } else {
    put(0xF0U | (value >> 18U));
    put(0x80U | ((value >> 12U) & 0x3FU));
    put(0x80U | ((value >> 6U) & 0x3FU));
    put(0x80U | (value & 0x3FU));
  }
}

std::size_t count_code_points(std::string_view text) {
  std::size_t count = 0;
  for (const char byte : text) {
    count += (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U ? 1 : 0;
  }
  return count;
}

std::size_t byte_offset(std::string_view text, std::size_t index) {
  std::size_t offset = 0;
  while (index > 0 && offset < text.size()) {
    offset += first_code_point(text.substr(offset)).bytes;
    --index;
  }
  return offset < text.size() ? offset : text.size();
}

std::vector<std::string_view> split_code_points(std::string_view text) {
  std::vector<std::string_view> result;
  while (!text.empty()) {
    const std::size_t bytes = first_code_point(text).bytes;
    result.push_back(text.substr(0, bytes));
    text.remove_prefix(result.back().size());
  }
  return result;
}

bool is_space(char32_t value) {
  return (value >= 9 && value <= 13) || (value >= 28 && value <= 32) || value == 0x85 || value == 0xA0 || value == 0x1680 ||
         (value >= 0x2000 && value <= 0x200A) || value == 0x2028 || value == 0x2029 || value == 0x202F || value == 0x205F || value == 0x3000;
}

std::string_view strip_left(std::string_view text) {
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    if (!is_space(point.value)) {
      break;
    }
    text.remove_prefix(point.bytes);
  }
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    std::size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0U) == 0x80U) {
      --start;
    }
    if (!is_space(first_code_point(text.substr(start)).value)) {
      break;
    }
    text = text.substr(0, start);
  }
  return text;
}

char32_t with_case(char32_t value, LetterCase letter_case) {
  const auto point = static_cast<utf8proc_int32_t>(value);
  switch (letter_case) {
    case LetterCase::kLower:
      return static_cast<char32_t>(utf8proc_tolower(point));
    case LetterCase::kUpper:
      // utf8proc makes U+00DF a capital sharp s; Python makes it SS, and the header says that such letters stay.
      return value == 0xDF ? value : static_cast<char32_t>(utf8proc_toupper(point));
    case LetterCase::kTitle:
      return value == 0xDF ? value : static_cast<char32_t>(utf8proc_totitle(point));
  }
  return value;
}

bool is_cased(char32_t value) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(value));
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL || category == UTF8PROC_CATEGORY_LT;
}

bool is_letter(char32_t value) {
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(value));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_printable(char32_t value) {
  if (value == ' ') {
    return true;
  }
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(value))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

namespace {

template <typename Choose>
std::string map_case(std::string_view text, Choose choose) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    append_code_point(with_case(point.value, choose(point.value)), result);
    text.remove_prefix(point.bytes);
  }
  return result;
}

}  // namespace

std::string lower_text(std::string_view text) {
  return map_case(text, [](char32_t) { return LetterCase::kLower; });
}

std::string upper_text(std::string_view text) {
  return map_case(text, [](char32_t) { return LetterCase::kUpper; });
}

std::string capitalize_text(std::string_view text) {
  bool first = true;
  return map_case(text, [&first](char32_t) { return std::exchange(first, false) ? LetterCase::kTitle : LetterCase::kLower; });
}

std::string title_text(std::string_view text) {
  bool in_word = false;
  return map_case(text, [&in_word](char32_t value) { return std::exchange(in_word, is_cased(value)) ? LetterCase::kLower : LetterCase::kTitle; });
}

}  // namespace lockstep::model::chat
