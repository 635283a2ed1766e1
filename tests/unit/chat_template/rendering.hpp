// Renders template text for tests.
#pragma once

#include <string>
#include <utility>

#include "lockstep/model/chat_template.hpp"

namespace lockstep::model {

/// What `source` renders to; "parse: ..." or "render: ..." of an error.
inline std::string rendered(std::string source, const ChatInput& input = {}) {
  const auto parsed = ChatTemplate::parse(std::move(source), "t");
  if (!parsed) {
    return "parse: " + parsed.error().message;
  }
  auto text = (*parsed)->render(input);
  return text ? *text : "render: " + text.error().message;
}

}  // namespace lockstep::model
