#include "daemon/api/text/json_text.hpp"

#include <cmath>
#include <cstddef>
#include <iterator>

#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

void append_escaped(std::string& out, char byte) {
  switch (byte) {
    case '"':
      out += "\\\"";
      break;
    case '\\':
      out += "\\\\";
      break;
    case '\n':
      out += "\\n";
      break;
    case '\r':
      out += "\\r";
      break;
    case '\t':
      out += "\\t";
      break;
    default:
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(byte)));
  }
}

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  std::size_t plain = 0;  // where the bytes begin that need no change
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (static_cast<unsigned char>(text[i]) < 0x20U || text[i] == '"' || text[i] == '\\') {
      out.append(text, plain, i - plain);
      append_escaped(out, text[i]);
      plain = i + 1;
    }
  }
  out.append(text, plain);
  out += '"';
}

void append_json_number(std::string& out, std::optional<float> number) {
  if (!number) {
    out += "null";
    return;
  }
  constexpr float kNone = -9999.0F;
  fmt::format_to(std::back_inserter(out), "{}", std::isfinite(*number) ? *number : kNone);
}

}  // namespace lockstep::daemon
