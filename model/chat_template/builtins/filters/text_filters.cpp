// Filters that make texts.
#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/chat_template/builtins/formatting.hpp"
#include "model/chat_template/builtins/text_functions.hpp"
#include "model/chat_template/values/to_text.hpp"
#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

template <std::string (*kChange)(std::string_view)>
Result<Value> change(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Value text, soft_text(runtime, self));
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(text.as_text().size() / 16));
  return new_text(runtime, kChange(text.as_text()), text.is_markup());
}

/// Unlike the method title: words begin behind blanks and opening brackets only.
std::string title_words(std::string_view text) {
  std::string result;
  bool at_start = true;
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    append_code_point(with_case(point.value, at_start ? LetterCase::kUpper : LetterCase::kLower), result);
    at_start = is_space(point.value) || (point.value < 0x80 && std::string_view("-({[<").find(static_cast<char>(point.value)) != std::string_view::npos);
    text.remove_prefix(point.bytes);
  }
  return result;
}

Result<Value> trim(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Value text, soft_text(runtime, self));
  std::optional<std::string_view> characters;
  if (bound[0] != nullptr && !bound[0]->is_none()) {
    LOCKSTEP_ASSIGN_OR_RETURN(characters, text_of(*bound[0], "the argument of 'trim'"));
    LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(text.as_text().size() * characters->size() / 64));
  }
  return new_text(runtime, std::string(strip_text(text.as_text(), characters, Side::kBoth)), text.is_markup());
}

Result<Value> replace(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Value text, soft_text(runtime, self));
  LOCKSTEP_ASSIGN_OR_RETURN(const Value old_part, soft_text(runtime, *bound[0]));
  LOCKSTEP_ASSIGN_OR_RETURN(const Value new_part, soft_text(runtime, *bound[1]));
  std::int64_t count = -1;
  if (bound[2] != nullptr && !bound[2]->is_none()) {
    LOCKSTEP_ASSIGN_OR_RETURN(count, whole_of(*bound[2], "the count of 'replace'"));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(std::string replaced, replace_text(runtime.budget, text.as_text(), old_part.as_text(), new_part.as_text(), count));
  return new_text(runtime, std::move(replaced));
}

Result<Value> string(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  return soft_text(runtime, self);
}

Result<Value> safe(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  LOCKSTEP_ASSIGN_OR_RETURN(std::string text, to_text(runtime.budget, self));
  return Value::text(std::move(text), true);
}

Result<Value> escape(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  if (self.is_markup()) {
    return self;
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string text, to_text(runtime.budget, self));
  return new_text(runtime, escape_html(text), true);
}

Result<Value> indent(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view text, text_of(self, "what 'indent' is applied to"));
  std::string blanks(4, ' ');
  if (bound[0] != nullptr && bound[0]->is_text()) {
    blanks = std::string(bound[0]->as_text());
  } else if (bound[0] != nullptr) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t width, whole_of(*bound[0], "the width of 'indent'"));
    LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(width > 0 ? static_cast<std::size_t>(width) : 0));
    blanks.assign(width > 0 ? static_cast<std::size_t>(width) : 0, ' ');
  }
  // The reference adds a line break before it splits, so an empty text has one empty line, and text that ends in a break keeps its last empty one.
  const std::string extended = std::string(text) + "\n";
  std::string result = flag_of(bound[1]) ? blanks : "";
  bool first = true;
  for (const std::string_view line : split_lines(extended, false)) {
    if (!first) {
      result += '\n';
      result += line.empty() && !flag_of(bound[2]) ? "" : blanks;
    }
    first = false;
    result += line;
    if (result.size() > kTextBytesMax) {
      LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(result.size()));
    }
  }
  return new_text(runtime, std::move(result), self.is_markup());
}

/// The "indent" of tojson: a number of blanks, or the text itself.
Result<std::optional<std::string>> json_indent(const Value* value) {
  if (value == nullptr || value->is_none()) {
    return std::optional<std::string>();
  }
  if (value->is_text()) {
    return std::optional<std::string>(value->as_text());
  }
  constexpr std::int64_t kWidthMax = 64;
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t width, whole_of(*value, "the indent of 'tojson'"));
  if (width > kWidthMax) {
    return failure(fmt::format("the indent of 'tojson' is {}, expected at most {}", width, kWidthMax));
  }
  return std::optional<std::string>(std::string(width > 0 ? static_cast<std::size_t>(width) : 0, ' '));
}

Result<Value> tojson(Runtime& runtime, const Value& self, const Bound& bound) {
  JsonStyle style{.ensure_ascii = flag_of(bound[0]), .sort_keys = flag_of(bound[3])};
  LOCKSTEP_ASSIGN_OR_RETURN(style.indent, json_indent(bound[1]));
  if (bound[2] != nullptr && !bound[2]->is_none()) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> separators, elements_of(runtime, *bound[2]));
    if (separators.size() != 2 || !separators[0].is_text() || !separators[1].is_text()) {
      return failure("the separators of 'tojson' are no pair of texts");
    }
    style.item_separator = std::string(separators[0].as_text());
    style.key_separator = std::string(separators[1].as_text());
  }
  LOCKSTEP_ASSIGN_OR_RETURN(std::string text, to_json(runtime.budget, self, style));
  return Value::text(std::move(text));
}

Result<Value> join(Runtime& runtime, const Value& self, const Bound& bound) {
  std::string separator;
  if (bound[0] != nullptr) {
    LOCKSTEP_ASSIGN_OR_RETURN(separator, to_text(runtime.budget, *bound[0]));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> items, elements_of(runtime, self));
  std::string result;
  for (std::size_t i = 0; i < items.size(); ++i) {
    Value item = items[i];
    if (bound[1] != nullptr && !bound[1]->is_none()) {
      LOCKSTEP_ASSIGN_OR_RETURN(item, get_path(runtime, item, *bound[1]));
    }
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string text, to_text(runtime.budget, item));
    result += i == 0 ? "" : separator;
    result += text;
    if (result.size() > kTextBytesMax) {
      LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(result.size()));
    }
  }
  return new_text(runtime, std::move(result));
}

Result<Value> format(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    return failure("'format' takes values in order, or by name, not both");
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const Value text, soft_text(runtime, self));
  Value values;
  if (arguments.named.empty()) {
    LOCKSTEP_ASSIGN_OR_RETURN(values, make_sequence(runtime.budget, Sequence::Flavor::kTuple, arguments.positional));
  } else {
    std::vector<std::pair<Value, Value>> entries;
    for (const auto& [name, value] : arguments.named) {
      entries.emplace_back(Value::text(name), value);
    }
    LOCKSTEP_ASSIGN_OR_RETURN(values, make_dict(runtime.budget, std::move(entries)));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(std::string result, percent_format(runtime, text.as_text(), values));
  return new_text(runtime, std::move(result));
}

constexpr std::array kFilters{
    Builtin{.name = "upper", .call = change<upper_text>},
    Builtin{.name = "lower", .call = change<lower_text>},
    Builtin{.name = "capitalize", .call = change<capitalize_text>},
    Builtin{.name = "title", .call = change<title_words>},
    Builtin{.name = "trim", .parameters = "chars", .call = trim},
    Builtin{.name = "replace", .parameters = "old,new,count", .required = 2, .call = replace},
    Builtin{.name = "string", .call = string},
    Builtin{.name = "safe", .call = safe},
    Builtin{.name = "escape", .call = escape},
    Builtin{.name = "e", .call = escape},
    Builtin{.name = "indent", .parameters = "width,first,blank", .call = indent},
    Builtin{.name = "tojson", .parameters = "ensure_ascii,indent,separators,sort_keys", .call = tojson},
    Builtin{.name = "join", .parameters = "d,attribute", .call = join},
    Builtin{.name = "format", .call_any = format},
};

}  // namespace

std::span<const Builtin> text_filters() {
  return kFilters;
}

}  // namespace lockstep::model::chat
