// Methods of texts.
#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/chat_template/builtins/formatting.hpp"
#include "model/chat_template/builtins/text_functions.hpp"
#include "model/chat_template/values/to_text.hpp"
#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

/// An argument that may be absent or none.
Result<std::optional<std::string_view>> optional_text(const Value* value, std::string_view what) {
  if (value == nullptr || value->is_none()) {
    return std::optional<std::string_view>();
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view text, text_of(*value, what));
  return std::optional<std::string_view>(text);
}

Result<std::int64_t> optional_whole(const Value* value, std::int64_t fallback, std::string_view what) {
  return value == nullptr ? Result<std::int64_t>(fallback) : whole_of(*value, what);
}

template <Side kSide>
Result<Value> strip(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const auto characters, optional_text(bound[0], "the argument of 'strip'"));
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(characters ? self.as_text().size() * characters->size() / 64 : 0));
  return new_text(runtime, std::string(strip_text(self.as_text(), characters, kSide)), self.is_markup());
}

Result<Value> list_of_texts(Runtime& runtime, const Value& self, const std::vector<std::string_view>& pieces, Sequence::Flavor flavor) {
  std::vector<Value> items;
  items.reserve(pieces.size());
  for (const std::string_view piece : pieces) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value item, new_text(runtime, std::string(piece), self.is_markup()));
    items.push_back(std::move(item));
  }
  return make_sequence(runtime.budget, flavor, std::move(items));
}

template <Side kSide>
Result<Value> split(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const auto separator, optional_text(bound[0], "the separator of 'split'"));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t count, optional_whole(bound[1], -1, "the count of 'split'"));
  if (separator && separator->empty()) {
    return failure("the separator of 'split' is empty");
  }
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(self.as_text().size() / 16));
  return list_of_texts(runtime, self, split_text(self.as_text(), separator, count, kSide), Sequence::Flavor::kList);
}

Result<Value> splitlines(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(self.as_text().size() / 16));
  return list_of_texts(runtime, self, split_lines(self.as_text(), flag_of(bound[0])), Sequence::Flavor::kList);
}

template <Side kSide>
Result<Value> partition(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view separator, text_of(*bound[0], "the separator of 'partition'"));
  if (separator.empty()) {
    return failure("the separator of 'partition' is empty");
  }
  const std::string_view text = self.as_text();
  const std::size_t found = kSide == Side::kLeft ? text.find(separator) : text.rfind(separator);
  std::vector<std::string_view> pieces{text, "", ""};
  if (found != std::string_view::npos) {
    pieces = {text.substr(0, found), separator, text.substr(found + separator.size())};
  } else if (kSide == Side::kRight) {
    pieces = {"", "", text};
  }
  return list_of_texts(runtime, self, pieces, Sequence::Flavor::kTuple);
}

/// The part of the text that start and end name, in code points.
struct Window {
  std::string_view text;
  std::int64_t start = 0;
  bool valid = true;  ///< a start behind the end finds nothing, not even an empty part
};

Result<Window> window_of(const Value& self, const Value* start_value, const Value* end_value) {
  const std::string_view text = self.as_text();
  const auto size = static_cast<std::int64_t>(count_code_points(text));
  const auto place = [size](std::int64_t index) { return index < 0 ? std::max<std::int64_t>(0, index + size) : index; };
  const auto bound_of = [](const Value* value, std::int64_t fallback) {
    return value == nullptr || value->is_none() ? Result<std::int64_t>(fallback) : whole_of(*value, "a position");
  };
  LOCKSTEP_ASSIGN_OR_RETURN(std::int64_t start, bound_of(start_value, 0));
  LOCKSTEP_ASSIGN_OR_RETURN(std::int64_t end, bound_of(end_value, size));
  start = place(start);
  end = std::min(place(end), size);
  if (start > size || start > end) {
    return Window{.text = {}, .start = start, .valid = false};
  }
  const std::size_t first = byte_offset(text, static_cast<std::size_t>(start));
  return Window{.text = text.substr(first, byte_offset(text, static_cast<std::size_t>(end)) - first), .start = start};
}

template <bool kAtStart>
Result<Value> has_affix(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Window window, window_of(self, bound[1], bound[2]));
  const Sequence* several = bound[0]->sequence();
  std::vector<Value> affixes{*bound[0]};
  if (several != nullptr && several->flavor == Sequence::Flavor::kTuple) {
    affixes = several->items;
  }
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(affixes.size()));
  for (const Value& affix : affixes) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view part, text_of(affix, kAtStart ? "the argument of 'startswith'" : "the argument of 'endswith'"));
    if (window.valid && (kAtStart ? window.text.starts_with(part) : window.text.ends_with(part))) {
      return Value::boolean(true);
    }
  }
  return Value::boolean(false);
}

template <bool kFromRight, bool kMustBeThere>
Result<Value> find(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view part, text_of(*bound[0], "the argument of 'find'"));
  LOCKSTEP_ASSIGN_OR_RETURN(const Window window, window_of(self, bound[1], bound[2]));
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(window.text.size() / 16));
  const std::size_t found = !window.valid ? std::string_view::npos : kFromRight ? window.text.rfind(part) : window.text.find(part);
  if (found == std::string_view::npos) {
    return kMustBeThere ? Result<Value>(failure("'index' of a text that is not a part of the other")) : Result<Value>(Value::integer(-1));
  }
  return Value::integer(window.start + static_cast<std::int64_t>(count_code_points(window.text.substr(0, found))));
}

Result<Value> count(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view part, text_of(*bound[0], "the argument of 'count'"));
  LOCKSTEP_ASSIGN_OR_RETURN(const Window window, window_of(self, bound[1], bound[2]));
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(window.text.size() / 16));
  return Value::integer(window.valid ? count_parts(window.text, part) : 0);
}

Result<Value> replace(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view old_part, text_of(*bound[0], "the text to replace"));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view new_part, text_of(*bound[1], "the replacement"));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t times, optional_whole(bound[2], -1, "the count of 'replace'"));
  const bool escapes = self.is_markup() && !bound[1]->is_markup();
  LOCKSTEP_ASSIGN_OR_RETURN(std::string text,
                            replace_text(runtime.budget, self.as_text(), old_part, escapes ? escape_html(new_part) : std::string(new_part), times));
  return new_text(runtime, std::move(text), self.is_markup());
}

template <std::string (*kChange)(std::string_view)>
Result<Value> change(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(self.as_text().size() / 16));
  return new_text(runtime, kChange(self.as_text()), self.is_markup());
}

Result<Value> join(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> items, elements_of(runtime, *bound[0]));
  std::string result;
  for (std::size_t i = 0; i < items.size(); ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view item, text_of(items[i], "an element to join"));
    result += i == 0 ? std::string_view() : self.as_text();
    result += self.is_markup() && !items[i].is_markup() ? escape_html(item) : std::string(item);
    if (result.size() > kTextBytesMax) {
      LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(result.size()));
    }
  }
  return new_text(runtime, std::move(result), self.is_markup());
}

template <bool kPrefix>
Result<Value> remove_affix(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view affix, text_of(*bound[0], "the affix to remove"));
  std::string_view text = self.as_text();
  if (kPrefix && text.starts_with(affix)) {
    text.remove_prefix(affix.size());
  } else if (!kPrefix && text.ends_with(affix)) {
    text.remove_suffix(affix.size());
  }
  return new_text(runtime, std::string(text), self.is_markup());
}

template <bool (*kIs)(char32_t)>
Result<Value> all_are(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(self.as_text().size() / 16));
  const std::vector<std::string_view> points = split_code_points(self.as_text());
  return Value::boolean(!points.empty() && std::ranges::all_of(points, [](std::string_view point) { return kIs(first_code_point(point).value); }));
}

bool is_decimal_digit(char32_t value) {
  return value >= '0' && value <= '9';
}

bool is_letter_or_digit(char32_t value) {
  return is_letter(value) || is_decimal_digit(value);
}

template <LetterCase kCase>
Result<Value> is_in_case(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(self.as_text().size() / 16));
  bool any = false;
  for (const std::string_view point : split_code_points(self.as_text())) {
    const char32_t value = first_code_point(point).value;
    any |= is_cased(value);
    if (is_cased(value) && with_case(value, kCase == LetterCase::kUpper ? LetterCase::kLower : LetterCase::kUpper) == value &&
        with_case(value, kCase) != value) {
      return Value::boolean(false);
    }
  }
  return Value::boolean(any);
}

Result<Value> format(Runtime& runtime, const Value& self, const Arguments& arguments) {
  LOCKSTEP_ASSIGN_OR_RETURN(std::string text, brace_format(runtime, self.as_text(), arguments));
  return new_text(runtime, std::move(text));
}

constexpr std::array kMethods{
    Builtin{.name = "strip", .parameters = "chars", .call = strip<Side::kBoth>},
    Builtin{.name = "lstrip", .parameters = "chars", .call = strip<Side::kLeft>},
    Builtin{.name = "rstrip", .parameters = "chars", .call = strip<Side::kRight>},
    Builtin{.name = "split", .parameters = "sep,maxsplit", .call = split<Side::kLeft>},
    Builtin{.name = "rsplit", .parameters = "sep,maxsplit", .call = split<Side::kRight>},
    Builtin{.name = "splitlines", .parameters = "keepends", .call = splitlines},
    Builtin{.name = "partition", .parameters = "sep", .required = 1, .call = partition<Side::kLeft>},
    Builtin{.name = "rpartition", .parameters = "sep", .required = 1, .call = partition<Side::kRight>},
    Builtin{.name = "startswith", .parameters = "prefix,start,end", .required = 1, .call = has_affix<true>},
    Builtin{.name = "endswith", .parameters = "suffix,start,end", .required = 1, .call = has_affix<false>},
    Builtin{.name = "find", .parameters = "sub,start,end", .required = 1, .call = find<false, false>},
    Builtin{.name = "rfind", .parameters = "sub,start,end", .required = 1, .call = find<true, false>},
    Builtin{.name = "index", .parameters = "sub,start,end", .required = 1, .call = find<false, true>},
    Builtin{.name = "count", .parameters = "sub,start,end", .required = 1, .call = count},
    Builtin{.name = "replace", .parameters = "old,new,count", .required = 2, .call = replace},
    Builtin{.name = "upper", .call = change<upper_text>},
    Builtin{.name = "lower", .call = change<lower_text>},
    Builtin{.name = "title", .call = change<title_text>},
    Builtin{.name = "capitalize", .call = change<capitalize_text>},
    Builtin{.name = "join", .parameters = "iterable", .required = 1, .call = join},
    Builtin{.name = "removeprefix", .parameters = "prefix", .required = 1, .call = remove_affix<true>},
    Builtin{.name = "removesuffix", .parameters = "suffix", .required = 1, .call = remove_affix<false>},
    Builtin{.name = "isspace", .call = all_are<is_space>},
    Builtin{.name = "isdigit", .call = all_are<is_decimal_digit>},
    Builtin{.name = "isalpha", .call = all_are<is_letter>},
    Builtin{.name = "isalnum", .call = all_are<is_letter_or_digit>},
    Builtin{.name = "isupper", .call = is_in_case<LetterCase::kUpper>},
    Builtin{.name = "islower", .call = is_in_case<LetterCase::kLower>},
    Builtin{.name = "format", .call_any = format},
};

}  // namespace

std::span<const Builtin> text_methods() {
  return kMethods;
}

}  // namespace lockstep::model::chat
