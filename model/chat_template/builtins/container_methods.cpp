// Methods of dicts, lists and tuples.
#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/chat_template/values/compare.hpp"

namespace lockstep::model::chat {
namespace {

Result<Value> items(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  std::vector<Value> pairs;
  for (const auto& [key, value] : self.dict()->entries) {
    LOCKSTEP_ASSIGN_OR_RETURN(Value pair, make_sequence(runtime.budget, Sequence::Flavor::kTuple, {key, value}));
    pairs.push_back(std::move(pair));
  }
  return make_sequence(runtime.budget, Sequence::Flavor::kItemsView, std::move(pairs));
}

template <bool kKeys>
Result<Value> keys_or_values(Runtime& runtime, const Value& self, const Bound& /*bound*/) {
  std::vector<Value> result;
  for (const auto& [key, value] : self.dict()->entries) {
    result.push_back(kKeys ? key : value);
  }
  return make_sequence(runtime.budget, kKeys ? Sequence::Flavor::kKeysView : Sequence::Flavor::kValuesView, std::move(result));
}

Result<Value> get(Runtime& /*runtime*/, const Value& self, const Bound& bound) {
  if (canonical_key(*bound[0]).empty()) {
    return failure(fmt::format("a {} cannot be a key of a dict", type_name(*bound[0])));
  }
  const Value* found = self.dict()->find(*bound[0]);
  return found != nullptr ? *found : bound[1] != nullptr ? *bound[1] : Value::none();
}

Result<Value> copy(Runtime& /*runtime*/, const Value& self, const Bound& /*bound*/) {
  return self;  // values never change
}

Result<Value> index(Runtime& runtime, const Value& self, const Bound& bound) {
  const std::vector<Value>& elements = self.sequence()->items;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(const bool same, equal(runtime.budget, elements[i], *bound[0]));
    if (same) {
      return Value::integer(static_cast<std::int64_t>(i));
    }
  }
  return failure("'index' of a value that is not in the list");
}

Result<Value> count(Runtime& runtime, const Value& self, const Bound& bound) {
  std::int64_t result = 0;
  for (const Value& element : self.sequence()->items) {
    LOCKSTEP_ASSIGN_OR_RETURN(const bool same, equal(runtime.budget, element, *bound[0]));
    result += same ? 1 : 0;
  }
  return Value::integer(result);
}

constexpr std::array kDictMethods{
    Builtin{.name = "items", .call = items},
    Builtin{.name = "keys", .call = keys_or_values<true>},
    Builtin{.name = "values", .call = keys_or_values<false>},
    Builtin{.name = "get", .parameters = "key,default", .required = 1, .call = get},
    Builtin{.name = "copy", .call = copy},
};

constexpr std::array kListMethods{
    Builtin{.name = "index", .parameters = "value", .required = 1, .call = index},
    Builtin{.name = "count", .parameters = "value", .required = 1, .call = count},
    Builtin{.name = "copy", .call = copy},
};

}  // namespace

std::span<const Builtin> container_methods(const Value& self) {
  if (self.dict() != nullptr) {
    return kDictMethods;
  }
  const Sequence* sequence = self.sequence();
  if (sequence == nullptr || !sequence->indexable()) {
    return {};
  }
  return std::span<const Builtin>(kListMethods).first(sequence->flavor == Sequence::Flavor::kList ? 3 : 2);
}

}  // namespace lockstep::model::chat
