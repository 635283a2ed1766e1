#include "model/chat_template/builtins/arguments.hpp"

#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "model/chat_template/values/to_text.hpp"
#include "model/chat_template/values/unicode.hpp"

namespace lockstep::model::chat {
namespace {

Error wrong_type(const Value& value, std::string_view what, std::string_view expected) {
  if (const auto* undefined = value.get<Undefined>()) {
    return failure(*undefined->reason);
  }
  return failure(fmt::format("{} is a {}, expected {}", what, type_name(value), expected));
}

std::vector<std::string_view> split_commas(std::string_view list) {
  std::vector<std::string_view> result;
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    result.push_back(list.substr(0, comma));
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
  return result;
}

}  // namespace

Error failure(std::string message) {
  return Error{ErrorCode::kInvalidArgument, std::move(message)};
}

Result<Value> invoke(Runtime& runtime, const Builtin& builtin, const Value& self, const Arguments& arguments) {
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step());
  if (builtin.call_any != nullptr) {
    return builtin.call_any(runtime, self, arguments);
  }
  const std::vector<std::string_view> names = split_commas(builtin.parameters);
  if (arguments.positional.size() > names.size()) {
    return failure(fmt::format("'{}' takes at most {} arguments, got {}", builtin.name, names.size(), arguments.positional.size()));
  }
  Bound bound{};
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) {
    bound[i] = &arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    std::size_t place = 0;
    while (place < names.size() && names[place] != name) {
      ++place;
    }
    if (place == names.size() || bound[place] != nullptr) {
      return failure(fmt::format("'{}' got the argument '{}', expected each of: {}", builtin.name, name, builtin.parameters));
    }
    bound[place] = &value;
  }
  for (std::size_t i = 0; i < builtin.required; ++i) {
    if (bound[i] == nullptr) {
      return failure(fmt::format("'{}' needs its argument '{}'", builtin.name, names[i]));
    }
  }
  return builtin.call(runtime, self, bound);
}

Result<std::string_view> text_of(const Value& value, std::string_view what) {
  if (!value.is_text()) {
    return wrong_type(value, what, "a text");
  }
  return value.as_text();
}

Result<std::int64_t> whole_of(const Value& value, std::string_view what) {
  const auto [has, whole] = value.whole();
  if (!has) {
    return wrong_type(value, what, "an integer");
  }
  return whole;
}

Result<std::vector<Value>> elements_of(Runtime& runtime, const Value& value) {
  std::vector<Value> result;
  if (const Sequence* sequence = value.sequence()) {
    if (sequence->broken) {
      return *sequence->broken;
    }
    LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(sequence->items.size()));
    result.assign(sequence->items.begin() + static_cast<std::ptrdiff_t>(sequence->taken), sequence->items.end());
    if (sequence->flavor == Sequence::Flavor::kGenerator) {
      sequence->taken = sequence->items.size();
    }
  } else if (const Dict* dict = value.dict()) {
    LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(dict->entries.size()));
    for (const auto& [key, item] : dict->entries) {
      result.push_back(key);
    }
  } else if (value.is_text()) {
    const std::vector<std::string_view> characters = split_code_points(value.as_text());
    LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(characters.size()));
    LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(characters.size() * 2));
    for (const std::string_view character : characters) {
      result.push_back(Value::text(std::string(character)));  // plain also of a text that `safe` marked
    }
  } else if (!value.is_undefined()) {
    return wrong_type(value, "what to go through", "a list, dict or text");
  }
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(result.size() * sizeof(Value)));
  return result;
}

Result<std::int64_t> length_of(const Value& value) {
  if (value.is_undefined()) {
    return 0;
  }
  if (value.is_text()) {
    return static_cast<std::int64_t>(count_code_points(value.as_text()));
  }
  if (const Dict* dict = value.dict()) {
    return static_cast<std::int64_t>(dict->entries.size());
  }
  if (const Sequence* sequence = value.sequence(); sequence != nullptr && sequence->has_length()) {
    return static_cast<std::int64_t>(sequence->items.size());
  }
  return failure(fmt::format("a {} has no length", type_name(value)));
}

bool flag_of(const Value* argument, bool fallback) {
  return argument == nullptr ? fallback : is_true(*argument);
}

Result<Value> new_text(Runtime& runtime, std::string text, bool markup) {
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(text.size()));
  return Value::text(std::move(text), markup);
}

Result<Value> soft_text(Runtime& runtime, const Value& value) {
  if (value.is_text()) {
    return value;
  }
  LOCKSTEP_ASSIGN_OR_RETURN(std::string text, to_text(runtime.budget, value));
  return Value::text(std::move(text));
}

Result<Value> get_attribute(Runtime& runtime, const Value& value, std::string_view name) {
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step());
  if (const auto* undefined = value.get<Undefined>()) {
    return failure(*undefined->reason);
  }
  if (const Builtin* method = find_method(value, name)) {
    return Value(Value::Data(std::make_shared<const BoundMethod>(BoundMethod{.self = value, .method = method})));
  }
  if (is_mutator(value, name) || (name.starts_with("__") && name.ends_with("__"))) {
    return Value::undefined(fmt::format("'{}' of a {} must not be used in a template", name, type_name(value)));
  }
  if (is_unsupported_attribute(value, name)) {
    return failure(fmt::format("'{}' of a {} is outside the supported subset of the template language", name, type_name(value)));
  }
  const Value* found = nullptr;
  if (const Dict* dict = value.dict()) {
    found = dict->find_text(name);
  } else if (const auto* object = value.get<NamespaceObject*>()) {
    found = (*object)->find(name);
  }
  return found != nullptr ? *found : Value::undefined(fmt::format("the {} has no '{}'", type_name(value), name));
}

Result<Value> get_item(Runtime& runtime, const Value& value, const Value& key) {
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step());
  if (const auto* undefined = value.get<Undefined>()) {
    return failure(*undefined->reason);
  }
  if (const Dict* dict = value.dict()) {
    if (const Value* found = dict->find(key)) {
      return *found;
    }
  }
  if (key.is_text()) {
    return get_attribute(runtime, value, key.as_text());
  }
  const auto [has, index] = key.whole();
  const Sequence* sequence = value.sequence();
  if (has && sequence != nullptr && sequence->indexable()) {
    const auto size = static_cast<std::int64_t>(sequence->items.size());
    const std::int64_t place = index < 0 ? index + size : index;
    if (place >= 0 && place < size) {
      return sequence->items[static_cast<std::size_t>(place)];
    }
  }
  if (has && value.is_text()) {
    const std::string_view text = value.as_text();
    LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(text.size() / 64));
    const auto size = static_cast<std::int64_t>(count_code_points(text));
    const std::int64_t place = index < 0 ? index + size : index;
    if (place >= 0 && place < size) {
      const std::string_view rest = text.substr(byte_offset(text, static_cast<std::size_t>(place)));
      return new_text(runtime, std::string(rest.substr(0, first_code_point(rest).bytes)), value.is_markup());
    }
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string shown, to_repr(runtime.budget, key));
  return Value::undefined(fmt::format("the {} has no element {}", type_name(value), shown.substr(0, 100)));
}

Result<Value> get_path(Runtime& runtime, const Value& value, const Value& path, const Value* fallback) {
  if (!path.is_text()) {
    return get_item(runtime, value, path);
  }
  Value current = value;
  std::string_view rest = path.as_text();
  while (true) {
    const std::size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    std::int64_t index = 0;
    const auto [end, code] = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = code == std::errc() && end == part.data() + part.size() && part.find('-') == std::string_view::npos;
    LOCKSTEP_ASSIGN_OR_RETURN(current, get_item(runtime, current, is_index ? Value::integer(index) : Value::text(std::string(part))));
    if (current.is_undefined() && fallback != nullptr && !fallback->is_none()) {
      current = *fallback;
    }
    if (dot == std::string_view::npos) {
      return current;
    }
    rest = rest.substr(dot + 1);
  }
}

}  // namespace lockstep::model::chat
