#include "model/chat_template/values/compare.hpp"

#include <cmath>
#include <compare>

#include <fmt/format.h>

namespace lockstep::model::chat {
namespace {

bool is_number(const Value& value) {
  return value.whole().has || value.is<double>();
}

/// Exact also where an integer is not a double: a long double holds 64 bits on x86, and the comparison of equals decides elsewhere.
Order order_numbers(const Value& left, const Value& right) {
  const auto [left_whole, left_value] = left.whole();
  const auto [right_whole, right_value] = right.whole();
  if (left_whole && right_whole) {
    return left_value < right_value ? Order::kLess : left_value == right_value ? Order::kEqual : Order::kGreater;
  }
  const long double a = left_whole ? static_cast<long double>(left_value) : static_cast<long double>(*left.get<double>());
  const long double b = right_whole ? static_cast<long double>(right_value) : static_cast<long double>(*right.get<double>());
  if (std::isnan(a) || std::isnan(b)) {
    return Order::kUnordered;
  }
  return a < b ? Order::kLess : a == b ? Order::kEqual : Order::kGreater;
}

bool same_flavor(const Sequence& left, const Sequence& right) {
  return left.flavor == right.flavor && left.flavor != Sequence::Flavor::kGenerator && left.flavor != Sequence::Flavor::kValuesView;
}

}  // namespace

// NOLINTNEXTLINE(misc-no-recursion): values are nested at most kValueDepthMax deep
Result<bool> equal(Budget& budget, const Value& left, const Value& right) {
  LOCKSTEP_RETURN_IF_ERROR(budget.step());
  if (is_number(left) && is_number(right)) {
    return order_numbers(left, right) == Order::kEqual;
  }
  if (left.is_text() && right.is_text()) {
    LOCKSTEP_RETURN_IF_ERROR(budget.step(left.as_text().size() / 64));
    return left.as_text() == right.as_text();
  }
  if (left.sequence() != nullptr && right.sequence() != nullptr) {
    const Sequence& a = *left.sequence();
    const Sequence& b = *right.sequence();
    if (&a == &b) {
      return true;
    }
    if (!same_flavor(a, b) || a.items.size() != b.items.size()) {
      return false;
    }
    for (std::size_t i = 0; i < a.items.size(); ++i) {
      LOCKSTEP_ASSIGN_OR_RETURN(const bool same, equal(budget, a.items[i], b.items[i]));
      if (!same) {
        return false;
      }
    }
    return true;
  }
  if (left.dict() != nullptr && right.dict() != nullptr) {
    if (left.dict()->entries.size() != right.dict()->entries.size()) {
      return false;
    }
    for (const auto& [key, value] : left.dict()->entries) {
      const Value* other = right.dict()->find(key);
      if (other == nullptr) {
        return false;
      }
      LOCKSTEP_ASSIGN_OR_RETURN(const bool same, equal(budget, value, *other));
      if (!same) {
        return false;
      }
    }
    return true;
  }
  if (const auto* object = left.get<NamespaceObject*>(); object != nullptr && right.is<NamespaceObject*>()) {
    return *object == *right.get<NamespaceObject*>();
  }
  if (const auto* macro = left.get<MacroRef>(); macro != nullptr && right.is<MacroRef>()) {
    return macro->statement == right.get<MacroRef>()->statement;
  }
  if (const auto* function = left.get<const Builtin*>(); function != nullptr && right.is<const Builtin*>()) {
    return *function == *right.get<const Builtin*>();
  }
  return (left.is_none() && right.is_none()) || (left.is_undefined() && right.is_undefined());
}

// NOLINTNEXTLINE(misc-no-recursion)
Result<Order> order_of(Budget& budget, const Value& left, const Value& right) {
  LOCKSTEP_RETURN_IF_ERROR(budget.step());
  if (is_number(left) && is_number(right)) {
    return order_numbers(left, right);
  }
  if (left.is_text() && right.is_text()) {
    LOCKSTEP_RETURN_IF_ERROR(budget.step(left.as_text().size() / 64));
    const int order = left.as_text().compare(right.as_text());  // the order of UTF-8's bytes is that of code points
    return order < 0 ? Order::kLess : order == 0 ? Order::kEqual : Order::kGreater;
  }
  for (const Value* value : {&left, &right}) {
    if (const auto* undefined = value->get<Undefined>()) {
      return Error{ErrorCode::kInvalidArgument, *undefined->reason};
    }
  }
  const Sequence* a = left.sequence();
  const Sequence* b = right.sequence();
  if (a != nullptr && b != nullptr && a->flavor == b->flavor && (a->flavor == Sequence::Flavor::kList || a->flavor == Sequence::Flavor::kTuple)) {
    for (std::size_t i = 0; i < std::min(a->items.size(), b->items.size()); ++i) {
      LOCKSTEP_ASSIGN_OR_RETURN(const bool same, equal(budget, a->items[i], b->items[i]));
      if (!same) {
        return order_of(budget, a->items[i], b->items[i]);
      }
    }
    return a->items.size() < b->items.size() ? Order::kLess : a->items.size() == b->items.size() ? Order::kEqual : Order::kGreater;
  }
  return Error{ErrorCode::kInvalidArgument, fmt::format("a {} and a {} have no order", type_name(left), type_name(right))};
}

Result<bool> contains(Budget& budget, const Value& container, const Value& item) {
  if (container.is_text()) {
    if (!item.is_text()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("'in' a text needs a text on its left, not a {}", type_name(item))};
    }
    LOCKSTEP_RETURN_IF_ERROR(budget.step(container.as_text().size() / 64));
    return container.as_text().find(item.as_text()) != std::string_view::npos;
  }
  if (const Dict* dict = container.dict()) {
    if (canonical_key(item).empty()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("a {} cannot be a key of a dict", type_name(item))};
    }
    return dict->find(item) != nullptr;
  }
  if (container.is_undefined()) {
    return false;
  }
  if (const Sequence* sequence = container.sequence()) {
    if (sequence->broken) {
      return *sequence->broken;
    }
    std::size_t place = sequence->taken;
    while (place < sequence->items.size()) {
      LOCKSTEP_ASSIGN_OR_RETURN(const bool same, equal(budget, sequence->items[place], item));
      ++place;
      if (sequence->flavor == Sequence::Flavor::kGenerator) {
        sequence->taken = place;
      }
      if (same) {
        return true;
      }
    }
    return false;
  }
  return Error{ErrorCode::kInvalidArgument, fmt::format("'in' needs a text, list or dict on its right, not a {}", type_name(container))};
}

}  // namespace lockstep::model::chat
