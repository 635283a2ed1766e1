#include "model/chat_template/builtins/builtin.hpp"

#include <algorithm>

namespace lockstep::model::chat {
namespace {

const Builtin* find_in(std::span<const Builtin> table, std::string_view name) {
  const auto place = std::ranges::find(table, name, &Builtin::name);
  return place == table.end() ? nullptr : &*place;
}

std::array<std::span<const Builtin>, 4> filter_tables() {
  return {text_filters(), sequence_filters(), select_filters(), number_filters()};
}

void append_names(std::span<const Builtin> table, std::string& out) {
  for (const Builtin& entry : table) {
    out += out.empty() ? "" : ", ";
    out += entry.name;
  }
}

template <std::size_t kCount>
bool is_one_of(std::string_view name, const std::array<std::string_view, kCount>& names) {
  return std::ranges::find(names, name) != names.end();
}

/// What Python's types have besides the tables, and templates must not silently see as undefined.
constexpr std::array<std::string_view, 17> kOtherTextNames{"casefold",  "center",       "encode",    "expandtabs",  "format_map", "isascii",
                                                           "isdecimal", "isidentifier", "isnumeric", "isprintable", "istitle",    "ljust",
                                                           "maketrans", "rindex",       "rjust",     "swapcase",    "translate"};
constexpr std::array<std::string_view, 5> kDictMutators{"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::array<std::string_view, 8> kListMutators{"append", "extend", "insert", "pop", "remove", "reverse", "sort", "clear"};
constexpr std::array<std::string_view, 13> kNumberNames{"real",     "imag",       "numerator", "denominator", "conjugate",  "bit_length",      "bit_count",
                                                        "to_bytes", "from_bytes", "hex",       "fromhex",     "is_integer", "as_integer_ratio"};
constexpr std::array<std::string_view, 4> kMacroNames{"name", "arguments", "catch_kwargs", "caller"};

}  // namespace

const Builtin* find_filter(std::string_view name) {
  for (const std::span<const Builtin> table : filter_tables()) {
    if (const Builtin* found = find_in(table, name)) {
      return found;
    }
  }
  return nullptr;
}

const Builtin* find_test(std::string_view name) {
  return find_in(all_tests(), name);
}

const Builtin* find_function(std::string_view name) {
  return find_in(all_functions(), name);
}

const Builtin* find_method(const Value& self, std::string_view name) {
  return find_in(self.is_text() ? text_methods() : container_methods(self), name);
}

bool is_method_name(std::string_view name) {
  static constexpr std::array<std::string_view, 7> kContainerNames{"items", "keys", "values", "get", "copy", "index", "count"};
  static constexpr std::array<std::string_view, 2> kLoopNames{"cycle", "changed"};
  return find_in(text_methods(), name) != nullptr || is_one_of(name, kContainerNames) || is_one_of(name, kLoopNames) || is_one_of(name, kDictMutators) ||
         is_one_of(name, kListMutators);
}

bool is_mutator(const Value& self, std::string_view name) {
  if (self.dict() != nullptr) {
    return is_one_of(name, kDictMutators);
  }
  return self.sequence() != nullptr && self.sequence()->flavor == Sequence::Flavor::kList && is_one_of(name, kListMutators);
}

bool is_unsupported_attribute(const Value& self, std::string_view name) {
  if (self.is_text()) {
    return is_one_of(name, kOtherTextNames) || name == "zfill";
  }
  if (self.dict() != nullptr) {
    return name == "fromkeys";
  }
  if (self.is<double>() || self.whole().has) {
    return is_one_of(name, kNumberNames);
  }
  return self.is<MacroRef>() && is_one_of(name, kMacroNames);
}

std::string filter_names() {
  std::string result;
  for (const std::span<const Builtin> table : filter_tables()) {
    append_names(table, result);
  }
  return result;
}

std::string test_names() {
  std::string result;
  append_names(all_tests(), result);
  return result;
}

std::string method_names() {
  std::string result = "items, keys, values, get, copy, index, count, cycle";
  append_names(text_methods(), result);
  return result;
}

}  // namespace lockstep::model::chat
