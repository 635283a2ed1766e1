// OptionKind: how the text of an option becomes a member of DaemonOptions, and what its users are told to write.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <fmt/format.h>

#include "daemon/options/options.hpp"
#include "daemon/options/values/values.hpp"

namespace lockstep::daemon {

/// What a line of the option table says of its value. Made by one of the functions below: each takes the member that it sets.
struct OptionKind {
  const char* placeholder;                                       ///< of the value, in the help
  std::string (*expected)();                                     ///< "a port from 0 to 65535": ends the sentence '"x" is not ...'
  bool (*apply)(std::string_view text, DaemonOptions& options);  ///< one value; false: it is not what is expected. Of a list, called for each.
  std::vector<std::string> (*choices)() = nullptr;               ///< all values, where they can be counted up
  void (*clear)(DaemonOptions& options) = nullptr;               ///< set for a list: called before the first value
  std::string (*nearest)(std::string_view text) = nullptr;       ///< of a number that is not taken, the nearest that is; "" of what is no number
  bool is_switch = false;                                        ///< "--name" alone means "--name true"
  bool is_secret = false;                                        ///< messages do not repeat the value
};

/// "a, b or c".
[[nodiscard]] inline std::string any_of(std::span<const std::string> words) {
  std::string result;
  for (std::size_t i = 0; i < words.size(); ++i) {
    result += i == 0 ? "" : i + 1 == words.size() ? " or " : ", ";
    result += words[i];
  }
  return result;
}

template <auto kMember>
using OptionMember = std::remove_cvref_t<decltype(std::declval<DaemonOptions&>().*kMember)>;

/// A whole number within [kLow, kHigh].
template <auto kMember, std::int64_t kLow, std::int64_t kHigh>
constexpr OptionKind whole_number() {
  return {.placeholder = "N",
          .expected =
              [] {
                if constexpr (kHigh == kLow + 1) {
                  return fmt::format("{} or {}", kLow, kHigh);
                } else {
                  return fmt::format("a whole number from {} to {}", kLow, kHigh);
                }
              },
          .apply =
              [](std::string_view text, DaemonOptions& options) {
                const auto value = read_integer(text, kLow, kHigh);
                options.*kMember = static_cast<OptionMember<kMember>>(value.value_or(0));
                return value.has_value();
              },
          .nearest = [](std::string_view text) { return nearest_integer(text, kLow, static_cast<std::uint64_t>(kHigh)); }};
}

/// A whole number from kLow on.
template <auto kMember, std::int64_t kLow>
constexpr OptionKind count_from() {
  return whole_number<kMember, kLow, std::numeric_limits<OptionMember<kMember>>::max()>();
}

template <auto kMember>
constexpr OptionKind port_number() {
  OptionKind kind = whole_number<kMember, 0, 65535>();
  kind.placeholder = "PORT";
  kind.expected = [] { return std::string("a port from 0 to 65535"); };
  return kind;
}

/// A time of at least 1 ms.
template <auto kMember>
constexpr OptionKind duration() {
  return {.placeholder = "TIME",
          .expected = [] { return std::string("a time from 1ms to 30 days, such as 500ms, 10s or 2m"); },
          .apply =
              [](std::string_view text, DaemonOptions& options) {
                const auto value = read_duration(text);
                options.*kMember = value.value_or(Duration::zero());
                return value.has_value();
              },
          .nearest = nearest_duration};
}

/// A number of bytes, at least 1.
template <auto kMember>
constexpr OptionKind byte_size() {
  return {.placeholder = "SIZE",
          .expected = [] { return std::string("a size from 1 byte to 8388607T, such as 256M or 2G"); },
          .apply =
              [](std::string_view text, DaemonOptions& options) {
                const auto value = read_byte_size(text);
                options.*kMember = value.value_or(0);
                return value.has_value();
              },
          .nearest = nearest_byte_size};
}

/// Any text but the empty one. kWhat names it: "the path of a file".
template <auto kMember, const char* const& kWhat>
constexpr OptionKind text_of(const char* placeholder) {
  return {.placeholder = placeholder,
          .expected = [] { return std::string(kWhat); },
          .apply =
              [](std::string_view text, DaemonOptions& options) {
                options.*kMember = text;
                return !text.empty();
              }};
}

/// Several texts, none of them empty: the option is repeated, or its values are separated by commas or, in the config file, are an array. kWhat names all.
template <auto kMember, const char* const& kWhat>
constexpr OptionKind list_of(const char* placeholder) {
  return {.placeholder = placeholder,
          .expected = [] { return std::string(kWhat); },
          .apply =
              [](std::string_view text, DaemonOptions& options) {
                (options.*kMember).emplace_back(text);
                return !text.empty();
              },
          .clear = [](DaemonOptions& options) { (options.*kMember).clear(); }};
}

/// The same, of values that no message may show.
template <auto kMember, const char* const& kWhat>
constexpr OptionKind secret_list_of(const char* placeholder) {
  OptionKind kind = list_of<kMember, kWhat>(placeholder);
  kind.is_secret = true;
  return kind;
}

/// On or off; off unless it is given.
template <auto kMember>
constexpr OptionKind on_or_off() {
  return {.placeholder = nullptr,
          .expected = [] { return std::string("true or false"); },
          .apply =
              [](std::string_view text, DaemonOptions& options) {
                const auto value = read_boolean(text);
                options.*kMember = value.value_or(false);
                return value.has_value();
              },
          .choices =
              [] {
                return std::vector<std::string>{"true", "false"};
              },
          .is_switch = true};
}

template <const auto& kChoices>
[[nodiscard]] std::vector<std::string> choice_names() {
  std::vector<std::string> names;
  for (const auto& choice : kChoices) {
    names.emplace_back(choice.first);
  }
  return names;
}

/// One of the names of kChoices, a constexpr array of pairs of a name and its value.
template <auto kMember, const auto& kChoices>
constexpr OptionKind one_of() {
  return {.placeholder = "NAME",
          .expected = [] { return any_of(choice_names<kChoices>()); },
          .apply =
              [](std::string_view text, DaemonOptions& options) {
                const auto found = std::ranges::find(kChoices, text, [](const auto& choice) { return choice.first; });
                if (found == std::ranges::end(kChoices)) {
                  return false;
                }
                options.*kMember = found->second;
                return true;
              },
          .choices = choice_names<kChoices>};
}

}  // namespace lockstep::daemon
