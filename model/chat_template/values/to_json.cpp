// json.dumps(), as the reference library's tojson calls it.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "model/chat_template/values/compare.hpp"
#include "model/chat_template/values/to_text.hpp"
#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

std::string json_number(double value) {
  if (std::isnan(value)) {
    return "NaN";
  }
  if (std::isinf(value)) {
    return value > 0 ? "Infinity" : "-Infinity";
  }
  return number_text(value);
}

class JsonWriter {
 public:
  JsonWriter(Budget& budget, const JsonStyle& style) : budget_(budget), style_(style), separator_(style.item_separator.value_or(style.indent ? "," : ", ")) {}

  // NOLINTNEXTLINE(misc-no-recursion): values are nested at most kValueDepthMax deep
  Status write(const Value& value, int level) {
    LOCKSTEP_RETURN_IF_ERROR(budget_.step());
    if (out_.size() > kTextBytesMax) {
      return budget_.allocate(out_.size());
    }
    if (value.is_none()) {
      out_ += "null";
    } else if (const bool* flag = value.get<bool>()) {
      out_ += *flag ? "true" : "false";
    } else if (const auto* whole = value.get<std::int64_t>()) {
      out_ += fmt::format("{}", *whole);
    } else if (const double* number = value.get<double>()) {
      out_ += json_number(*number);
    } else if (value.is_text()) {
      write_text(value.as_text());
    } else if (const Sequence* sequence = value.sequence();
               sequence != nullptr && (sequence->flavor == Sequence::Flavor::kList || sequence->flavor == Sequence::Flavor::kTuple)) {
      return write_items(*sequence, level);
    } else if (const Dict* dict = value.dict()) {
      return write_entries(*dict, level);
    } else {
      return Error{ErrorCode::kInvalidArgument, fmt::format("tojson of a value of type {}, which JSON does not have", type_name(value))};
    }
    return {};
  }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  void write_text(std::string_view text) {
    out_ += '"';
    while (!text.empty()) {
      const CodePoint point = first_code_point(text);
      write_code_point(point.value, text.substr(0, point.bytes));
      text.remove_prefix(point.bytes);
    }
    out_ += '"';
  }

  void write_code_point(char32_t value, std::string_view bytes) {
    static constexpr std::string_view kNamed = "\"\\\n\r\t\f\b";
    static constexpr std::string_view kLetters = "\"\\nrtfb";
    if (const std::size_t place = value < 0x80 ? kNamed.find(static_cast<char>(value)) : std::string_view::npos; place != std::string_view::npos) {
      out_ += '\\';
      out_ += kLetters[place];
    } else if (value < 0x20 || (style_.ensure_ascii && value > 0x7E && value < 0x10000)) {
      out_ += fmt::format("\\u{:04x}", static_cast<std::uint32_t>(value));
    } else if (style_.ensure_ascii && value >= 0x10000) {
      const auto above = static_cast<std::uint32_t>(value) - 0x10000U;
      out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xD800U + (above >> 10U), 0xDC00U + (above & 0x3FFU));
    } else {
      out_ += bytes;
    }
  }

  void new_line(int level) {
    if (style_.indent) {
      out_ += '\n';
      for (int i = 0; i < level; ++i) {
        out_ += *style_.indent;
      }
    }
  }

  // NOLINTNEXTLINE(misc-no-recursion)
  Status write_items(const Sequence& sequence, int level) {
    if (sequence.items.empty()) {
      out_ += "[]";
      return {};
    }
    out_ += '[';
    bool first = true;
    for (const Value& item : sequence.items) {
      out_ += first ? "" : separator_;
      first = false;
      new_line(level + 1);
      LOCKSTEP_RETURN_IF_ERROR(write(item, level + 1));
    }
    new_line(level);
    out_ += ']';
    return {};
  }

  Status write_key(const Value& key) {
    if (key.is_text()) {
      write_text(key.as_text());
      return {};
    }
    if (key.sequence() != nullptr || key.is_undefined()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("tojson of a dict with a key of type {}", type_name(key))};
    }
    out_ += '"';
    LOCKSTEP_RETURN_IF_ERROR(write(key, 0));
    out_ += '"';
    return {};
  }

  // NOLINTNEXTLINE(misc-no-recursion)
  Status write_entries(const Dict& dict, int level) {
    if (dict.entries.empty()) {
      out_ += "{}";
      return {};
    }
    std::vector<const std::pair<Value, Value>*> order;
    for (const auto& entry : dict.entries) {
      order.push_back(&entry);
    }
    if (style_.sort_keys) {
      LOCKSTEP_RETURN_IF_ERROR(sort_values(
          budget_, order, [](const auto* entry) { return entry->first; }, false));
    }
    out_ += '{';
    bool first = true;
    for (const auto* entry : order) {
      out_ += first ? "" : separator_;
      first = false;
      new_line(level + 1);
      LOCKSTEP_RETURN_IF_ERROR(write_key(entry->first));
      out_ += style_.key_separator;
      LOCKSTEP_RETURN_IF_ERROR(write(entry->second, level + 1));
    }
    new_line(level);
    out_ += '}';
    return {};
  }

  Budget& budget_;
  const JsonStyle& style_;
  std::string separator_;
  std::string out_;
};

}  // namespace

Result<std::string> to_json(Budget& budget, const Value& value, const JsonStyle& style) {
  JsonWriter writer(budget, style);
  LOCKSTEP_RETURN_IF_ERROR(writer.write(value, 0));
  std::string text = writer.take();
  LOCKSTEP_RETURN_IF_ERROR(budget.allocate(text.size()));
  return text;
}

}  // namespace lockstep::model::chat
