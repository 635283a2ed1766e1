#include "model/chat_template/values/value.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "model/tokenizer/text/utf8.hpp"

namespace lockstep::model::chat {
namespace {

Error too_deep() {
  return Error{ErrorCode::kInvalidArgument, fmt::format("a value is nested more than {} deep", kValueDepthMax)};
}

int depth_of(const Value& value) {
  if (const Sequence* sequence = value.sequence()) {
    return sequence->depth;
  }
  if (const Dict* dict = value.dict()) {
    return dict->depth;
  }
  if (const auto* method = value.get<std::shared_ptr<const BoundMethod>>()) {
    return depth_of((*method)->self) + 1;
  }
  return 0;
}

}  // namespace

const Sequence* Value::sequence() const {
  const auto* pointer = get<SequencePtr>();
  return pointer == nullptr ? nullptr : pointer->get();
}

const Dict* Value::dict() const {
  const auto* pointer = get<DictPtr>();
  return pointer == nullptr ? nullptr : pointer->get();
}

Value::Whole Value::whole() const {
  if (const bool* flag = get<bool>()) {
    return {.has = true, .value = *flag ? 1 : 0};
  }
  if (const auto* number = get<std::int64_t>()) {
    return {.has = true, .value = *number};
  }
  return {};
}

const Value* Dict::find_text(std::string_view key) const {
  const auto place = index.find(std::string("s").append(key));
  return place == index.end() ? nullptr : &entries[place->second].second;
}

const Value* Dict::find(const Value& key) const {
  const auto place = index.find(canonical_key(key));
  return place == index.end() ? nullptr : &entries[place->second].second;
}

const Value* NamespaceObject::find(std::string_view name) const {
  const auto place = std::ranges::find(attributes, name, [](const auto& pair) { return std::string_view(pair.first); });
  return place == attributes.end() ? nullptr : &place->second;
}

void NamespaceObject::set(std::string_view name, Value value) {
  const auto place = std::ranges::find(attributes, name, [](const auto& pair) { return std::string_view(pair.first); });
  if (place == attributes.end()) {
    attributes.emplace_back(std::string(name), std::move(value));
  } else {
    place->second = std::move(value);
  }
}

std::string_view type_name(const Value& value) {
  static constexpr std::array<std::string_view, std::variant_size_v<Value::Data>> kNames{
      "Undefined", "NoneType", "bool", "int", "float", "str", "list", "dict", "Namespace", "LoopContext", "Macro", "method", "function"};
  const Sequence* sequence = value.sequence();
  if (sequence == nullptr) {
    return kNames[value.data().index()];
  }
  static constexpr std::array<std::string_view, 7> kFlavors{"list", "tuple", "range", "dict_items", "dict_keys", "dict_values", "generator"};
  return kFlavors[static_cast<std::size_t>(sequence->flavor)];
}

bool is_true(const Value& value) {
  struct Truth {
    bool operator()(const Undefined&) const { return false; }
    bool operator()(const None&) const { return false; }
    bool operator()(bool flag) const { return flag; }
    bool operator()(std::int64_t number) const { return number != 0; }
    bool operator()(double number) const { return number != 0; }
    bool operator()(const Text& text) const { return !text.bytes->empty(); }
    bool operator()(const Value::SequencePtr& sequence) const { return !sequence->has_length() || !sequence->items.empty(); }
    bool operator()(const Value::DictPtr& dict) const { return !dict->entries.empty(); }
    bool operator()(const NamespaceObject*) const { return true; }
    bool operator()(const LoopState*) const { return true; }
    bool operator()(const MacroRef&) const { return true; }
    bool operator()(const std::shared_ptr<const BoundMethod>&) const { return true; }
    bool operator()(const Builtin*) const { return true; }
  };
  return std::visit(Truth{}, value.data());
}

std::string canonical_key(const Value& key) {
  if (key.is_text()) {
    return std::string("s").append(key.as_text());
  }
  if (key.is_none()) {
    return "n";
  }
  if (key.is_undefined()) {
    return "u";
  }
  if (const auto [has, value] = key.whole(); has) {
    return fmt::format("i{}", value);
  }
  if (const double* number = key.get<double>()) {
    const bool is_whole = std::trunc(*number) == *number && std::abs(*number) < 9e18;
    return is_whole ? fmt::format("i{}", static_cast<std::int64_t>(*number)) : fmt::format("f{}", *number);
  }
  if (const auto* object = key.get<NamespaceObject*>()) {
    return fmt::format("o{}", fmt::ptr(*object));
  }
  if (const auto* macro = key.get<MacroRef>()) {
    return fmt::format("o{}", fmt::ptr(macro->statement));
  }
  if (const auto* function = key.get<const Builtin*>()) {
    return fmt::format("o{}", fmt::ptr(*function));
  }
  if (const Sequence* tuple = key.sequence(); tuple != nullptr && tuple->flavor == Sequence::Flavor::kTuple) {
    std::string result = "t";
    for (const Value& item : tuple->items) {
      const std::string part = canonical_key(item);
      if (part.empty()) {
        return {};
      }
      result += fmt::format("{}:{}", part.size(), part);
    }
    return result;
  }
  return {};
}

Result<Value> make_sequence(Budget& budget, Sequence::Flavor flavor, std::vector<Value> items) {
  LOCKSTEP_RETURN_IF_ERROR(budget.step(items.size()));
  LOCKSTEP_RETURN_IF_ERROR(budget.allocate(items.size() * sizeof(Value)));
  auto result = std::make_shared<Sequence>();
  for (const Value& item : items) {
    result->depth = std::max(result->depth, depth_of(item) + 1);
  }
  if (result->depth > kValueDepthMax) {
    return too_deep();
  }
  result->flavor = flavor;
  result->items = std::move(items);
  return Value(Value::Data(Value::SequencePtr(std::move(result))));
}

Result<Value> make_generator(Budget& budget, Result<std::vector<Value>> items) {
  if (items) {
    return make_sequence(budget, Sequence::Flavor::kGenerator, std::move(items).value());
  }
  auto result = std::make_shared<Sequence>();
  result->flavor = Sequence::Flavor::kGenerator;
  result->broken = std::make_shared<const Error>(std::move(items).error());
  return Value(Value::Data(Value::SequencePtr(std::move(result))));
}

Result<Value> make_dict(Budget& budget, std::vector<std::pair<Value, Value>> entries) {
  LOCKSTEP_RETURN_IF_ERROR(budget.step(entries.size()));
  LOCKSTEP_RETURN_IF_ERROR(budget.allocate(entries.size() * 2 * sizeof(Value)));
  auto result = std::make_shared<Dict>();
  for (auto& [key, value] : entries) {
    std::string canonical = canonical_key(key);
    if (canonical.empty()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("a {} cannot be a key of a dict", type_name(key))};
    }
    LOCKSTEP_RETURN_IF_ERROR(budget.allocate(canonical.size()));
    result->depth = std::max({result->depth, depth_of(key) + 1, depth_of(value) + 1});
    if (const auto [place, added] = result->index.try_emplace(std::move(canonical), result->entries.size()); !added) {
      result->entries[place->second].second = std::move(value);
    } else {
      result->entries.emplace_back(std::move(key), std::move(value));
    }
  }
  if (result->depth > kValueDepthMax) {
    return too_deep();
  }
  return Value(Value::Data(Value::DictPtr(std::move(result))));
}

Result<Value> to_value(Budget& budget, const TemplateValue& value, int depth) {
  if (depth >= kValueDepthMax) {
    return too_deep();
  }
  const auto checked_text = [&budget](const std::string& text) -> Result<Value> {
    LOCKSTEP_RETURN_IF_ERROR(budget.allocate(text.size()));
    if (const std::size_t valid = valid_utf8_prefix(text); valid != text.size()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("a text of the conversation is not UTF-8 at byte {}", valid)};
    }
    return Value::text(text);
  };
  switch (value.kind()) {
    case TemplateValue::Kind::kNull:
      return Value::none();
    case TemplateValue::Kind::kBoolean:
      return Value::boolean(value.as_boolean());
    case TemplateValue::Kind::kInteger:
      return Value::integer(value.as_integer());
    case TemplateValue::Kind::kNumber:
      return Value::number(value.as_number());
    case TemplateValue::Kind::kString:
      return checked_text(value.as_string());
    case TemplateValue::Kind::kList: {
      std::vector<Value> items;
      items.reserve(value.elements().size());
      for (const TemplateValue& element : value.elements()) {
        LOCKSTEP_ASSIGN_OR_RETURN(Value item, to_value(budget, element, depth + 1));
        items.push_back(std::move(item));
      }
      return make_sequence(budget, Sequence::Flavor::kList, std::move(items));
    }
    case TemplateValue::Kind::kObject: {
      std::vector<std::pair<Value, Value>> entries;
      entries.reserve(value.members().size());
      for (const TemplateValue::Member& member : value.members()) {
        LOCKSTEP_ASSIGN_OR_RETURN(Value key, checked_text(member.key));
        LOCKSTEP_ASSIGN_OR_RETURN(Value item, to_value(budget, member.value, depth + 1));
        entries.emplace_back(std::move(key), std::move(item));
      }
      return make_dict(budget, std::move(entries));
    }
  }
  return Value::none();
}

}  // namespace lockstep::model::chat
