#include "model/chat_template/syntax/source_text.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "model/tokenizer/text/utf8.hpp"

namespace lockstep::model::chat {

Result<SourceText> SourceText::create(std::string_view text, std::string name) {
  constexpr std::size_t kBytesMax = 1U << 20U;
  if (text.size() > kBytesMax) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: the template has {} bytes, expected at most {}", name, text.size(), kBytesMax)};
  }
  if (const std::size_t valid = valid_utf8_prefix(text); valid != text.size()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: not UTF-8 at byte {}: save the template as UTF-8", name, valid)};
  }
  SourceText result;
  result.name_ = std::move(name);
  result.text_.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r') {
      result.text_ += '\n';
      i += i + 1 < text.size() && text[i + 1] == '\n' ? 1 : 0;
    } else {
      result.text_ += text[i];
    }
  }
  if (result.text_.ends_with('\n')) {
    result.text_.pop_back();
  }
  result.line_starts_.push_back(0);
  for (std::size_t i = 0; i < result.text_.size(); ++i) {
    if (result.text_[i] == '\n') {
      result.line_starts_.push_back(i + 1);
    }
  }
  return result;
}

int SourceText::line_of(std::size_t offset) const {
  return static_cast<int>(std::ranges::upper_bound(line_starts_, offset) - line_starts_.begin());
}

Error SourceText::error(std::size_t offset, ErrorCode code, std::string_view message) const {
  const int line = line_of(offset);
  return Error{code, fmt::format("{}:{}:{}: {}", name_, line, offset - line_starts_[static_cast<std::size_t>(line) - 1] + 1, message)};
}

}  // namespace lockstep::model::chat
