// TemplateValue: JSON-like data for a chat template, without a JSON library in the header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace lockstep::model {

/// null, bool, 64-bit integer, double, text, list, or object whose keys keep their order.
/// Ownership  a value type: copies are deep.      Threads  a value.      Limits  the depth is the maker's to bound: destructor and copy recurse.
class TemplateValue {
 public:
  enum class Kind { kNull, kBoolean, kInteger, kNumber, kString, kList, kObject };
  struct Member;

  TemplateValue() = default;  ///< null
  [[nodiscard]] static TemplateValue boolean(bool value);
  [[nodiscard]] static TemplateValue integer(std::int64_t value);
  [[nodiscard]] static TemplateValue number(double value);
  [[nodiscard]] static TemplateValue string(std::string value);
  [[nodiscard]] static TemplateValue list();
  [[nodiscard]] static TemplateValue object();

  [[nodiscard]] Kind kind() const { return static_cast<Kind>(data_.index()); }
  [[nodiscard]] bool is_null() const { return kind() == Kind::kNull; }

  /// Only of a value of that kind: anything else is our own bug.
  [[nodiscard]] bool as_boolean() const;
  [[nodiscard]] std::int64_t as_integer() const;
  [[nodiscard]] double as_number() const;
  [[nodiscard]] const std::string& as_string() const;
  [[nodiscard]] const std::vector<TemplateValue>& elements() const;
  [[nodiscard]] const std::vector<Member>& members() const;

  /// Only of a list.
  void push_back(TemplateValue element);
  /// Only of an object: adds the member, or replaces its value in its old place.      Cost  O(log members).
  void set(std::string_view key, TemplateValue value);
  /// The member's value; nullptr where it is absent or this is no object.      Cost  O(log members).
  [[nodiscard]] const TemplateValue* find(std::string_view key) const;

 private:
  struct Object {
    std::vector<Member> members;
    std::map<std::string, std::size_t, std::less<>> index;  ///< key to place; a tree, so that chosen keys cannot make it slow
  };
  using Data = std::variant<std::monostate, bool, std::int64_t, double, std::string, std::vector<TemplateValue>, Object>;

  explicit TemplateValue(Data data);

  Data data_;
};

struct TemplateValue::Member {
  std::string key;
  TemplateValue value;
};

}  // namespace lockstep::model
