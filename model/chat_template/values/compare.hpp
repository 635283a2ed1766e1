// Python's ==, <, `in` and sorted() of values.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>
#include <vector>

#include "lockstep/core/result.hpp"
#include "model/chat_template/values/value.hpp"

namespace lockstep::model::chat {

/// Values of different types are unequal, never an error; numbers compare by value, true is 1.
[[nodiscard]] Result<bool> equal(Budget& budget, const Value& left, const Value& right);
/// What an order says; `unordered` is a NaN's. Errors  kInvalidArgument: types without an order between them.
enum class Order { kLess, kEqual, kGreater, kUnordered };
[[nodiscard]] Result<Order> order_of(Budget& budget, const Value& left, const Value& right);
/// `item in container`. Errors  kInvalidArgument: not a container; a part of a text that is no text.
[[nodiscard]] Result<bool> contains(Budget& budget, const Value& container, const Value& item);

/// Sorts by `key_of(element)`, stable, also with `reverse`. Errors  those of order_of; then `elements` are as they were.
template <typename Element, typename KeyOf>
Status sort_values(Budget& budget, std::vector<Element>& elements, KeyOf key_of, bool reverse) {
  std::vector<Value> keys;
  std::vector<std::size_t> places(elements.size());
  std::iota(places.begin(), places.end(), std::size_t{0});
  for (const Element& element : elements) {
    keys.push_back(key_of(element));
  }
  // Insertion into sorted runs by merging: unlike std::sort it stays defined when an order fails half-way or a NaN makes it inconsistent.
  std::vector<std::size_t> merged(places.size());
  for (std::size_t width = 1; width < places.size(); width *= 2) {
    for (std::size_t start = 0; start < places.size(); start += 2 * width) {
      const std::size_t middle = std::min(start + width, places.size());
      const std::size_t end = std::min(start + 2 * width, places.size());
      std::size_t left = start;
      std::size_t right = middle;
      for (std::size_t out = start; out < end; ++out) {
        bool take_right = left == middle;
        if (left < middle && right < end) {
          const Value& a = keys[places[reverse ? left : right]];
          const Value& b = keys[places[reverse ? right : left]];
          auto order = order_of(budget, a, b);
          if (!order) {
            return std::move(order).error();
          }
          take_right = *order == Order::kLess;
        }
        merged[out] = places[take_right ? right++ : left++];
      }
    }
    places.swap(merged);
  }
  std::vector<Element> sorted;
  for (const std::size_t place : places) {
    sorted.push_back(elements[place]);
  }
  elements = std::move(sorted);
  return {};
}

}  // namespace lockstep::model::chat
