// Global functions: what templates call by name.
#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "model/chat_template/builtins/arguments.hpp"
#include "model/tokenizer/text/utf8.hpp"

namespace lockstep::model::chat {
namespace {

Result<Value> range(Runtime& runtime, const Value& /*self*/, const Arguments& arguments) {
  if (arguments.positional.empty() || arguments.positional.size() > 3 || !arguments.named.empty()) {
    return failure("'range' takes one to three integers");
  }
  std::array<std::int64_t, 3> numbers{0, 0, 1};
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(numbers[i], whole_of(arguments.positional[i], "an argument of 'range'"));
  }
  if (arguments.positional.size() == 1) {
    std::swap(numbers[0], numbers[1]);
  }
  const auto [start, stop, step] = numbers;
  constexpr std::int64_t kLimit = std::int64_t{1} << 62;
  if (step == 0 || std::ranges::any_of(numbers, [](std::int64_t number) { return number > kLimit || number < -kLimit; })) {
    return failure("'range' with a step of 0, or with numbers beyond 62 bits");
  }
  const std::int64_t span = step > 0 ? stop - start : start - stop;
  const std::int64_t magnitude = step > 0 ? step : -step;
  const std::int64_t count = span <= 0 ? 0 : (span - 1) / magnitude + 1;
  constexpr std::int64_t kCountMax = 100'000;  // as the reference's sandbox
  if (count > kCountMax) {
    return failure(fmt::format("'range' of {} numbers, at most {}", count, kCountMax));
  }
  auto result = std::make_shared<Sequence>();
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.step(static_cast<std::uint64_t>(count)));
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(static_cast<std::size_t>(count) * sizeof(Value)));
  result->flavor = Sequence::Flavor::kRange;
  result->range = numbers;
  for (std::int64_t i = 0; i < count; ++i) {
    result->items.push_back(Value::integer(start + i * step));
  }
  return Value(Value::Data(Value::SequencePtr(std::move(result))));
}

/// The pairs of dict(...) and namespace(...): a dict or pairs first, names then.
Result<Value> dict(Runtime& runtime, const Value& /*self*/, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> entries;
  if (arguments.positional.size() > 1) {
    return failure("'dict' and 'namespace' take at most one value without a name");
  }
  for (const Value& source : arguments.positional) {
    if (const Dict* other = source.dict()) {
      entries = other->entries;
      continue;
    }
    LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> pairs, elements_of(runtime, source));
    for (const Value& pair : pairs) {
      LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<Value> parts, elements_of(runtime, pair));
      if (parts.size() != 2) {
        return failure("'dict' needs pairs of a key and a value");
      }
      entries.emplace_back(parts[0], parts[1]);
    }
  }
  for (const auto& [name, value] : arguments.named) {
    entries.emplace_back(Value::text(name), value);
  }
  return make_dict(runtime.budget, std::move(entries));
}

Result<Value> make_namespace(Runtime& runtime, const Value& self, const Arguments& arguments) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Value entries, dict(runtime, self, arguments));
  LOCKSTEP_RETURN_IF_ERROR(runtime.budget.allocate(256));
  NamespaceObject& object = runtime.namespaces.emplace_back();
  for (const auto& [key, value] : entries.dict()->entries) {
    if (!key.is_text()) {
      return failure("'namespace' needs texts as names");
    }
    object.attributes.emplace_back(key.as_text(), value);  // the keys of a dict differ
  }
  return Value(Value::Data(&object));
}

Result<Value> raise_exception(Runtime& runtime, const Value& /*self*/, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const Value message, soft_text(runtime, *bound[0]));
  constexpr std::size_t kBytesMax = 1000;
  runtime.raised = true;
  const std::string_view start = message.as_text().substr(0, kBytesMax);
  return failure(std::string(start.substr(0, valid_utf8_prefix(start))));
}

Result<Value> strftime_now(Runtime& runtime, const Value& /*self*/, const Bound& bound) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view format, text_of(*bound[0], "the argument of 'strftime_now'"));
  if (format.empty()) {
    return new_text(runtime, "");
  }
  constexpr std::size_t kFormatBytesMax = 256;
  std::array<char, kFormatBytesMax * 32> buffer{};
  const std::string terminated(format);
  const std::size_t bytes = format.size() > kFormatBytesMax ? 0 : std::strftime(buffer.data(), buffer.size(), terminated.c_str(), &runtime.local_time);
  if (bytes == 0 || format.find('\0') != std::string_view::npos) {
    return failure("'strftime_now' with a format that gives nothing, or too much");
  }
  return new_text(runtime, std::string(buffer.data(), bytes));
}

constexpr std::array kFunctions{
    Builtin{.name = "range", .call_any = range},
    Builtin{.name = "dict", .call_any = dict},
    Builtin{.name = "namespace", .call_any = make_namespace},
    Builtin{.name = "raise_exception", .parameters = "message", .required = 1, .call = raise_exception},
    Builtin{.name = "strftime_now", .parameters = "format", .required = 1, .call = strftime_now},
};

}  // namespace

std::span<const Builtin> all_functions() {
  return kFunctions;
}

}  // namespace lockstep::model::chat
