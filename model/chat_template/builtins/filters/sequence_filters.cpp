// Filters of lists, dicts, and anything that has elements.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/chat_template/builtins/text_functions.hpp"
#include "model/chat_template/values/compare.hpp"
#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

Result<Value> length(Runtime& /*runtime*/, const Value& self, const Bound& /*bound*/) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t size, length_of(self));
  return Value::integer(size);
}

Result<Value> list(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  LOCKSTEP_ASSIGN_OR_RETURN(std::vector<Value> elements, elements_of(runtime, self));
  return make_sequence(runtime.budget, Sequence::Flavor::kList, std::move(elements));
}

Result<Value> first(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> elements, elements_of(runtime, self));
  return elements.empty() ? Value::undefined("'first' of nothing") : elements.front();
}

Result<Value> last(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  if (const Sequence* sequence = self.sequence(); sequence != nullptr && !sequence->has_length()) {
    return failure("'last' of a generator: make a list of it by the filter 'list'");
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> elements, elements_of(runtime, self));
  return elements.empty() ? Value::undefined("'last' of nothing") : elements.back();
}

Result<Value> reverse(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  LOCKSTEP_ASSIGN_OR_RETURN(std::vector<Value> elements, elements_of(runtime, self));
  std::ranges::reverse(elements);
  if (!self.is_text()) {
    return make_sequence(runtime.budget, Sequence::Flavor::kGenerator, std::move(elements));
  }
  std::string text;
  for (const Value& element : elements) {
    text += element.as_text();
  }
  return new_text(runtime, std::move(text), self.is_markup());
}

Result<std::vector<Value>> pairs_of(Runtime& runtime, const Value& self) {
  std::vector<Value> pairs;
  if (const Dict* dict = self.dict()) {
    for (const auto& [key, value] : dict->entries) {
      LOCKSTEP_ASSIGN_OR_RETURN(Value pair, make_sequence(runtime.budget, Sequence::Flavor::kTuple, {key, value}));
      pairs.push_back(std::move(pair));
    }
  } else if (!self.is_undefined()) {
    return failure(fmt::format("'items' of a {}, expected a dict", type_name(self)));
  }
  return pairs;
}

Result<Value> items(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  return make_generator(runtime.budget, pairs_of(runtime, self));
}

/// Texts compare in lower case unless `case_sensitive`.
Result<Value> sort_key(Runtime& runtime, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_text()) {
    return value;
  }
  return new_text(runtime, lower_text(value.as_text()));
}

Result<Value> dictsort(Runtime& runtime, const Value& self, const Bound& bound) {
  const Dict* dict = self.dict();
  const std::string_view by = bound[1] == nullptr ? "key" : bound[1]->is_text() ? bound[1]->as_text() : "";
  if (dict == nullptr || (by != "key" && by != "value")) {
    return failure("'dictsort' needs a dict, and \"key\" or \"value\" to sort by");
  }
  std::vector<std::pair<Value, Value>> keyed;  // what to sort by, and the pair
  for (const auto& [key, value] : dict->entries) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value pair, make_sequence(runtime.budget, Sequence::Flavor::kTuple, {key, value}));
    LOCKSTEP_ASSIGN_OR_RETURN(Value by_value, sort_key(runtime, by == "key" ? key : value, flag_of(bound[0])));
    keyed.emplace_back(std::move(by_value), std::move(pair));
  }
  LOCKSTEP_RETURN_IF_ERROR(sort_values(
      runtime.budget, keyed, [](const auto& entry) { return entry.first; }, flag_of(bound[2])));
  std::vector<Value> result;
  for (auto& [key, pair] : keyed) {
    result.push_back(std::move(pair));
  }
  return make_sequence(runtime.budget, Sequence::Flavor::kList, std::move(result));
}

/// The key of an element for sort, unique, min and max.
Result<Value> element_key(Runtime& runtime, const Value& element, const Value* attribute, bool case_sensitive) {
  Value key = element;
  if (attribute != nullptr && !attribute->is_none()) {
    LOCKSTEP_ASSIGN_OR_RETURN(key, get_path(runtime, element, *attribute));
  }
  return sort_key(runtime, key, case_sensitive);
}

/// What sort compares: the element, or its attributes "a,b.c" in that order; a list, so that undefined ones are equal and not an error.
Result<Value> sort_keys(Runtime& runtime, const Value& element, const Value* attribute, bool case_sensitive) {
  std::vector<Value> keys;
  if (attribute == nullptr || !attribute->is_text()) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value key, element_key(runtime, element, attribute, case_sensitive));
    keys.push_back(std::move(key));
  } else {
    for (const std::string_view path : split_text(attribute->as_text(), ",", -1, Side::kLeft)) {
      const Value part = Value::text(std::string(path));
      LOCKSTEP_ASSIGN_OR_RETURN(Value key, element_key(runtime, element, &part, case_sensitive));
      keys.push_back(std::move(key));
    }
  }
  return make_sequence(runtime.budget, Sequence::Flavor::kList, std::move(keys));
}

Result<Value> sort(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> elements, elements_of(runtime, self));
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& element : elements) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value key, sort_keys(runtime, element, bound[2], flag_of(bound[1])));
    keyed.emplace_back(std::move(key), element);
  }
  LOCKSTEP_RETURN_IF_ERROR(sort_values(
      runtime.budget, keyed, [](const auto& entry) { return entry.first; }, flag_of(bound[0])));
  std::vector<Value> result;
  for (auto& [key, element] : keyed) {
    result.push_back(std::move(element));
  }
  return make_sequence(runtime.budget, Sequence::Flavor::kList, std::move(result));
}

Result<std::vector<Value>> distinct(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> elements, elements_of(runtime, self));
  std::set<std::string> seen;
  std::vector<Value> result;
  for (const Value& element : elements) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Value key, element_key(runtime, element, bound[1], flag_of(bound[0])));
    std::string canonical = canonical_key(key);
    if (canonical.empty()) {
      return failure(fmt::format("'unique' of a {}, which cannot be a key", type_name(key)));
    }
    LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(canonical.size()));
    if (seen.insert(std::move(canonical)).second) {
      result.push_back(element);
    }
  }
  return result;
}

Result<Value> unique(Runtime& runtime, const Value& self, const Bound& bound) {
  return make_generator(runtime.budget, distinct(runtime, self, bound));
}

template <bool kLargest>
Result<Value> extreme(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> elements, elements_of(runtime, self));
  if (elements.empty()) {
    return Value::undefined("no elements to choose from");
  }
  Value best = elements.front();
  LOCKSTEP_ASSIGN_OR_RETURN(Value best_key, element_key(runtime, best, bound[1], flag_of(bound[0])));
  for (std::size_t i = 1; i < elements.size(); ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value key, element_key(runtime, elements[i], bound[1], flag_of(bound[0])));
    LOCKSTEP_ASSIGN_OR_RETURN(const Order order, order_of(runtime.budget, key, best_key));
    if (order == (kLargest ? Order::kGreater : Order::kLess)) {
      best = elements[i];
      best_key = std::move(key);
    }
  }
  return best;
}

Result<Value> fallback(Runtime& /*runtime*/, const Value& self, const Bound& bound) {
  const bool replaced = self.is_undefined() || (flag_of(bound[1]) && !is_true(self));
  return !replaced ? self : bound[0] != nullptr ? *bound[0] : Value::text("");
}

Result<Value> attribute(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view name, text_of(*bound[0], "the argument of 'attr'"));
  if (self.dict() != nullptr && find_method(self, name) == nullptr) {
    return Value::undefined(fmt::format("the dict has no attribute '{}'", name));  // 'attr' does not look into dicts
  }
  return get_attribute(runtime, self, name);
}

constexpr std::array kFilters{
    Builtin{.name = "length", .call = length},
    Builtin{.name = "count", .call = length},
    Builtin{.name = "list", .call = list},
    Builtin{.name = "first", .call = first},
    Builtin{.name = "last", .call = last},
    Builtin{.name = "reverse", .call = reverse},
    Builtin{.name = "items", .call = items},
    Builtin{.name = "dictsort", .parameters = "case_sensitive,by,reverse", .call = dictsort},
    Builtin{.name = "sort", .parameters = "reverse,case_sensitive,attribute", .call = sort},
    Builtin{.name = "unique", .parameters = "case_sensitive,attribute", .call = unique},
    Builtin{.name = "min", .parameters = "case_sensitive,attribute", .call = extreme<false>},
    Builtin{.name = "max", .parameters = "case_sensitive,attribute", .call = extreme<true>},
    Builtin{.name = "default", .parameters = "default_value,boolean", .call = fallback},
    Builtin{.name = "d", .parameters = "default_value,boolean", .call = fallback},
    Builtin{.name = "attr", .parameters = "name", .required = 1, .call = attribute},
};

}  // namespace

std::span<const Builtin> sequence_filters() {
  return kFilters;
}

}  // namespace lockstep::model::chat
