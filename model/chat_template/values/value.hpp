// Value: what an expression of a template gives, with the kinds that Python has.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "lockstep/core/result.hpp"
#include "lockstep/model/template_value.hpp"
#include "model/chat_template/values/budget.hpp"

namespace lockstep::model::chat {

struct Sequence;
struct Dict;
struct NamespaceObject;
struct LoopState;
struct Statement;
struct Builtin;
struct BoundMethod;

/// Printing it gives nothing; almost anything else with it is an error that `reason` explains ("'x' is undefined").
struct Undefined {
  std::shared_ptr<const std::string> reason;
};
struct None {};
/// Text; `markup` marks what `safe` made: adding to it escapes HTML, as the reference's Markup does.
struct Text {
  std::shared_ptr<const std::string> bytes;
  bool markup = false;
};
/// A macro: its statement, owned by the program.
struct MacroRef {
  const Statement* statement = nullptr;
};

/// One value, cheap to copy: texts and containers are shared and never change, so they cannot form a cycle. Namespaces and loops are owned by the rendering,
/// which outlives its values.      Threads  one rendering's.
class Value {
 public:
  using SequencePtr = std::shared_ptr<const Sequence>;
  using DictPtr = std::shared_ptr<const Dict>;
  using Data = std::variant<Undefined, None, bool, std::int64_t, double, Text, SequencePtr, DictPtr, NamespaceObject*, LoopState*, MacroRef,
                            std::shared_ptr<const BoundMethod>, const Builtin*>;

  Value() : data_(None{}) {}
  Value(Data data) : data_(std::move(data)) {}  // NOLINT: implicit by design
  [[nodiscard]] static Value undefined(std::string reason) { return Value(Data(Undefined{std::make_shared<const std::string>(std::move(reason))})); }
  [[nodiscard]] static Value none() { return {}; }
  [[nodiscard]] static Value boolean(bool value) { return Value(Data(value)); }
  [[nodiscard]] static Value integer(std::int64_t value) { return Value(Data(value)); }
  [[nodiscard]] static Value number(double value) { return Value(Data(value)); }
  [[nodiscard]] static Value text(std::string value, bool markup = false) {
    return Value(Data(Text{.bytes = std::make_shared<const std::string>(std::move(value)), .markup = markup}));
  }

  template <typename T>
  [[nodiscard]] bool is() const {
    return std::holds_alternative<T>(data_);
  }
  template <typename T>
  [[nodiscard]] const T* get() const {
    return std::get_if<T>(&data_);
  }
  [[nodiscard]] const Data& data() const { return data_; }

  [[nodiscard]] bool is_undefined() const { return is<Undefined>(); }
  [[nodiscard]] bool is_none() const { return is<None>(); }
  [[nodiscard]] bool is_text() const { return is<Text>(); }
  [[nodiscard]] std::string_view as_text() const { return *std::get<Text>(data_).bytes; }
  [[nodiscard]] bool is_markup() const { return is_text() && std::get<Text>(data_).markup; }
  [[nodiscard]] const Sequence* sequence() const;
  [[nodiscard]] const Dict* dict() const;
  /// bool and int, as Python counts them; nullptr-like: `has` is false for others.
  struct Whole {
    bool has = false;
    std::int64_t value = 0;
  };
  [[nodiscard]] Whole whole() const;

 private:
  Data data_;
};

/// list, tuple, and what Python iterates over otherwise.
struct Sequence {
  enum class Flavor { kList, kTuple, kRange, kItemsView, kKeysView, kValuesView, kGenerator };
  Flavor flavor = Flavor::kList;
  std::vector<Value> items;
  int depth = 1;                        ///< of the nesting
  std::array<std::int64_t, 3> range{};  ///< start, stop, step of a kRange
  mutable std::size_t taken = 0;        ///< of a kGenerator: elements that are gone
  std::shared_ptr<const Error> broken;  ///< of a kGenerator: what going through it fails with
  [[nodiscard]] bool indexable() const { return flavor == Flavor::kList || flavor == Flavor::kTuple || flavor == Flavor::kRange; }
  [[nodiscard]] bool has_length() const { return flavor != Flavor::kGenerator; }
};

/// A dict: keys in the order of insertion, any hashable key.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  std::map<std::string, std::size_t, std::less<>> index;  ///< canonical key to place: a tree, so that chosen keys cannot make it slow
  int depth = 1;
  [[nodiscard]] const Value* find_text(std::string_view key) const;
  [[nodiscard]] const Value* find(const Value& key) const;
};

struct NamespaceObject {
  std::vector<std::pair<std::string, Value>> attributes;  ///< in the order of their first setting

  [[nodiscard]] const Value* find(std::string_view name) const;
  void set(std::string_view name, Value value);
};

/// A method of a value, not called yet.
struct BoundMethod {
  Value self;
  const Builtin* method = nullptr;
};

/// Python's name of the type, for messages.
[[nodiscard]] std::string_view type_name(const Value& value);
[[nodiscard]] bool is_true(const Value& value);
/// How dict keys are compared: 1, 1.0 and true are one key. Empty for what cannot be a key.
[[nodiscard]] std::string canonical_key(const Value& key);

/// Errors  kInvalidArgument: nested deeper than kValueDepthMax, too large.
[[nodiscard]] Result<Value> make_sequence(Budget& budget, Sequence::Flavor flavor, std::vector<Value> items);
/// A generator over the elements; one over an error where there is one, which only those meet that go through it.
[[nodiscard]] Result<Value> make_generator(Budget& budget, Result<std::vector<Value>> items);
[[nodiscard]] Result<Value> make_dict(Budget& budget, std::vector<std::pair<Value, Value>> entries);
/// What a request holds. Errors  kInvalidArgument: text that is not UTF-8, nested too deep.
[[nodiscard]] Result<Value> to_value(Budget& budget, const TemplateValue& value, int depth = 0);

}  // namespace lockstep::model::chat
