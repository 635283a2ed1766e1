// SourceText: a template's text, and messages that name a place in it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"

namespace lockstep::model::chat {

class SourceText {
 public:
  /// Lines end with \n from here on, and one at the very end is dropped, as the reference does.
  /// Errors  kInvalidArgument: larger than 1 MiB, not UTF-8.
  [[nodiscard]] static Result<SourceText> create(std::string_view text, std::string name);

  [[nodiscard]] std::string_view text() const { return text_; }
  [[nodiscard]] int line_of(std::size_t offset) const;
  /// "NAME:LINE:COLUMN: message"; columns count bytes, from 1.
  [[nodiscard]] Error error(std::size_t offset, ErrorCode code, std::string_view message) const;

 private:
  std::string text_;
  std::vector<std::size_t> line_starts_;  ///< offset of each line
  std::string name_;
};

}  // namespace lockstep::model::chat
