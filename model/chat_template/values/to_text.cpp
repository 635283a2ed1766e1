#include "model/chat_template/values/to_text.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include <fmt/format.h>

#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

void append_text_repr(std::string_view text, std::string& out) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  out += quote;
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    const char32_t value = point.value;
    if (value == static_cast<char32_t>(quote) || value == '\\') {
      out += '\\';
      out += static_cast<char>(value);
    } else if (value == '\n') {
      out += "\\n";
    } else if (value == '\r') {
      out += "\\r";
    } else if (value == '\t') {
      out += "\\t";
    } else if (is_printable(value)) {
      out += text.substr(0, point.bytes);
    } else if (value < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<std::uint32_t>(value));
    } else if (value < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<std::uint32_t>(value));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<std::uint32_t>(value));
    }
    text.remove_prefix(point.bytes);
  }
  out += quote;
}

/// repr() into one growing text, whose size is charged as it grows.
class ReprWriter {
 public:
  explicit ReprWriter(Budget& budget) : budget_(budget) {}

  // NOLINTNEXTLINE(misc-no-recursion): values are nested at most kValueDepthMax deep
  Status write(const Value& value) {
    LOCKSTEP_RETURN_IF_ERROR(budget_.step());
    if (out_.size() > kTextBytesMax) {
      return budget_.allocate(out_.size());
    }
    if (value.is_undefined()) {
      out_ += "Undefined";
    } else if (value.is_none()) {
      out_ += "None";
    } else if (const bool* flag = value.get<bool>()) {
      out_ += *flag ? "True" : "False";
    } else if (const auto* whole = value.get<std::int64_t>()) {
      out_ += fmt::format("{}", *whole);
    } else if (const double* number = value.get<double>()) {
      out_ += number_text(*number);
    } else if (value.is_text()) {
      out_ += value.is_markup() ? "Markup(" : "";
      append_text_repr(value.as_text(), out_);
      out_ += value.is_markup() ? ")" : "";
    } else if (const Sequence* sequence = value.sequence()) {
      return write_sequence(*sequence);
    } else if (const Dict* dict = value.dict()) {
      return write_entries(*dict);
    } else if (const auto* object = value.get<NamespaceObject*>()) {
      return write_namespace(**object);
    } else {
      return no_text(value);
    }
    return {};
  }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  static Error no_text(const Value& value) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("a {} has no text of its own: call it, or make a list of it", type_name(value))};
  }

  // NOLINTNEXTLINE(misc-no-recursion)
  Status write_sequence(const Sequence& sequence) {
    static constexpr std::array<std::array<std::string_view, 2>, 6> kBrackets{
        {{"[", "]"}, {"(", ")"}, {"", ""}, {"dict_items([", "])"}, {"dict_keys([", "])"}, {"dict_values([", "])"}}};
    if (sequence.flavor == Sequence::Flavor::kGenerator) {
      return Error{ErrorCode::kInvalidArgument, "a generator has no text of its own: make a list of it by the filter 'list'"};
    }
    if (sequence.flavor == Sequence::Flavor::kRange) {
      const auto [start, stop, step] = sequence.range;
      out_ += step == 1 ? fmt::format("range({}, {})", start, stop) : fmt::format("range({}, {}, {})", start, stop, step);
      return {};
    }
    const auto& [open, close] = kBrackets[static_cast<std::size_t>(sequence.flavor)];
    out_ += open;
    bool first = true;
    for (const Value& item : sequence.items) {
      out_ += first ? "" : ", ";
      first = false;
      LOCKSTEP_RETURN_IF_ERROR(write(item));
    }
    out_ += sequence.flavor == Sequence::Flavor::kTuple && sequence.items.size() == 1 ? "," : "";
    out_ += close;
    return {};
  }

  // NOLINTNEXTLINE(misc-no-recursion)
  Status write_entries(const Dict& dict) {
    out_ += "{";
    bool first = true;
    for (const auto& [key, item] : dict.entries) {
      out_ += first ? "" : ", ";
      first = false;
      LOCKSTEP_RETURN_IF_ERROR(write(key));
      out_ += ": ";
      LOCKSTEP_RETURN_IF_ERROR(write(item));
    }
    out_ += "}";
    return {};
  }

  // NOLINTNEXTLINE(misc-no-recursion): namespaces may refer to each other in a circle
  Status write_namespace(const NamespaceObject& object) {
    if (++namespaces_ > 10) {
      return Error{ErrorCode::kInvalidArgument, "the text of a namespace that refers to itself, or of more than 10 in each other"};
    }
    out_ += "<Namespace {";
    bool first = true;
    for (const auto& [name, item] : object.attributes) {
      out_ += first ? "" : ", ";
      first = false;
      append_text_repr(name, out_);
      out_ += ": ";
      LOCKSTEP_RETURN_IF_ERROR(write(item));
    }
    out_ += "}>";
    --namespaces_;
    return {};
  }

  Budget& budget_;
  std::string out_;
  int namespaces_ = 0;
};

}  // namespace

std::string number_text(double value) {
  if (std::isnan(value)) {
    return "nan";
  }
  if (std::isinf(value)) {
    return value > 0 ? "inf" : "-inf";
  }
  std::array<char, 64> buffer{};
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific);
  const std::string_view scientific(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  const std::size_t e = scientific.find('e');
  const int exponent = std::atoi(scientific.data() + e + 1);
  if (exponent < -4 || exponent >= 16) {
    return std::string(scientific);  // both write at least two digits of exponent, and its sign
  }
  const auto [fixed_end, fixed_error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed);
  std::string text(buffer.data(), static_cast<std::size_t>(fixed_end - buffer.data()));
  if (text.find('.') == std::string::npos) {
    text += ".0";
  }
  return text;
}

Result<std::string> to_repr(Budget& budget, const Value& value) {
  ReprWriter writer(budget);
  LOCKSTEP_RETURN_IF_ERROR(writer.write(value));
  std::string text = writer.take();
  LOCKSTEP_RETURN_IF_ERROR(budget.allocate(text.size()));
  return text;
}

Result<std::string> to_text(Budget& budget, const Value& value) {
  if (value.is_text()) {
    LOCKSTEP_RETURN_IF_ERROR(budget.allocate(value.as_text().size()));
    return std::string(value.as_text());
  }
  if (value.is_undefined()) {
    return std::string();
  }
  return to_repr(budget, value);
}

std::string escape_html(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (const char character : text) {
    switch (character) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&#34;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += character;
    }
  }
  return result;
}

}  // namespace lockstep::model::chat
