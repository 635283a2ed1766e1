// map, select, reject, selectattr, rejectattr, sum: filters that apply others to each element.
#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/chat_template/evaluation/operators.hpp"

namespace lockstep::model::chat {
namespace {

const Value* named(const Arguments& arguments, std::string_view name) {
  for (const auto& [key, value] : arguments.named) {
    if (key == name) {
      return &value;
    }
  }
  return nullptr;
}

Result<std::vector<Value>> mapped(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (!is_true(self)) {
    return std::vector<Value>{};  // whatever it is, and whatever the arguments are
  }
  const Value* attribute = arguments.positional.empty() ? named(arguments, "attribute") : nullptr;
  const Builtin* filter = nullptr;
  Arguments rest = arguments;
  if (attribute == nullptr) {
    if (arguments.positional.empty()) {
      return failure("'map' needs a filter's name, or attribute=");
    }
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view name, text_of(arguments.positional[0], "the filter of 'map'"));
    filter = find_filter(name);
    if (filter == nullptr) {
      return failure(fmt::format("'map' with the filter '{}', which is not in the supported subset: {}", name, filter_names()));
    }
    rest.positional.erase(rest.positional.begin());
  } else if (arguments.named.size() > (named(arguments, "default") != nullptr ? 2U : 1U)) {
    return failure("'map' takes attribute= and default= only");
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> elements, elements_of(runtime, self));
  std::vector<Value> result;
  for (const Value& element : elements) {
    LOCKSTEP_ASSIGN_OR_RETURN(
        Value item, filter != nullptr ? invoke(runtime, *filter, element, rest) : get_path(runtime, element, *attribute, named(arguments, "default")));
    result.push_back(std::move(item));
  }
  return result;
}

Result<Value> map(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return make_generator(runtime.budget, mapped(runtime, self, arguments));
}

template <bool kKeep, bool kByAttribute>
Result<std::vector<Value>> selected(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (!is_true(self)) {
    return std::vector<Value>{};
  }
  Arguments rest = arguments;
  Value attribute;
  if (kByAttribute) {
    if (rest.positional.empty()) {
      return failure("'selectattr' and 'rejectattr' need the name of an attribute");
    }
    attribute = rest.positional[0];
    rest.positional.erase(rest.positional.begin());
  }
  const Builtin* test = nullptr;
  if (!rest.positional.empty()) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view name, text_of(rest.positional[0], "the test to select by"));
    test = find_test(name);
    if (test == nullptr) {
      return failure(fmt::format("the test '{}' is not in the supported subset: {}", name, test_names()));
    }
    rest.positional.erase(rest.positional.begin());
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> elements, elements_of(runtime, self));
  std::vector<Value> result;
  for (const Value& element : elements) {
    Value tested = element;
    if (kByAttribute) {
      LOCKSTEP_ASSIGN_OR_RETURN(tested, get_path(runtime, element, attribute));
    }
    if (test != nullptr) {
      LOCKSTEP_ASSIGN_OR_RETURN(tested, invoke(runtime, *test, tested, rest));
    }
    if (is_true(tested) == kKeep) {
      result.push_back(element);
    }
  }
  return result;
}

template <bool kKeep, bool kByAttribute>
Result<Value> select(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return make_generator(runtime.budget, selected<kKeep, kByAttribute>(runtime, self, arguments));
}

Result<Value> sum(Runtime& runtime, const Value& self, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> elements, elements_of(runtime, self));
  Value total = bound[1] != nullptr ? *bound[1] : Value::integer(0);
  if (total.is_text()) {
    return failure("'sum' of texts: use 'join'");
  }
  for (const Value& element : elements) {
    Value item = element;
    if (bound[0] != nullptr && !bound[0]->is_none()) {
      LOCKSTEP_ASSIGN_OR_RETURN(item, get_path(runtime, element, *bound[0]));
    }
    LOCKSTEP_ASSIGN_OR_RETURN(total, apply_binary(runtime, BinaryOperator::kAdd, total, item));
  }
  return total;
}

constexpr std::array kFilters{
    Builtin{.name = "map", .call_any = map},
    Builtin{.name = "select", .call_any = select<true, false>},
    Builtin{.name = "reject", .call_any = select<false, false>},
    Builtin{.name = "selectattr", .call_any = select<true, true>},
    Builtin{.name = "rejectattr", .call_any = select<false, true>},
    Builtin{.name = "sum", .parameters = "attribute,start", .call = sum},
};

}  // namespace

std::span<const Builtin> select_filters() {
  return kFilters;
}

}  // namespace lockstep::model::chat
