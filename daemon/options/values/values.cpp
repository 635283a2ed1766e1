#include "daemon/options/values/values.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>

namespace lockstep::daemon {
namespace {

/// Reads all of `text` as a T.
template <typename T>
std::optional<T> read_whole(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

/// A number however it is written and however large; not NaN.
std::optional<double> read_real(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size() || error == std::errc::invalid_argument || std::isnan(value)) {
    return std::nullopt;
  }
  if (error == std::errc::result_out_of_range) {  // which leaves the value alone
    const bool is_tiny = text.find("e-") != std::string_view::npos || text.find("E-") != std::string_view::npos;
    value = is_tiny ? 0 : std::copysign(std::numeric_limits<double>::infinity(), text.starts_with('-') ? -1.0 : 1.0);
  }
  return value;
}

std::string nearest_whole(double value, std::int64_t low, std::uint64_t high) {
  if (value <= static_cast<double>(low)) {
    return std::to_string(low);
  }
  if (value >= static_cast<double>(high)) {
    return std::to_string(high);
  }
  return value < 0 ? std::to_string(static_cast<std::int64_t>(std::round(value))) : std::to_string(static_cast<std::uint64_t>(std::round(value)));
}

/// Takes the longest of `suffixes` off the end of `text`; what it multiplies by.
struct Suffix {
  std::string_view name;
  std::int64_t factor;
};
std::int64_t take_suffix(std::string_view& text, std::span<const Suffix> suffixes) {
  for (const Suffix& suffix : suffixes) {
    if (text.size() > suffix.name.size() && text.ends_with(suffix.name)) {
      text.remove_suffix(suffix.name.size());
      return suffix.factor;
    }
  }
  return 0;
}

constexpr std::int64_t kKiB = 1024;
constexpr std::array kSizeSuffixes{
    Suffix{"KiB", kKiB}, Suffix{"MiB", kKiB* kKiB}, Suffix{"GiB", kKiB* kKiB* kKiB}, Suffix{"TiB", kKiB* kKiB* kKiB* kKiB},
    Suffix{"K", kKiB},   Suffix{"M", kKiB* kKiB},   Suffix{"G", kKiB* kKiB* kKiB},   Suffix{"T", kKiB* kKiB* kKiB* kKiB},
};
constexpr std::int64_t kMillisecond = 1'000'000;  // in nanoseconds
constexpr std::array kTimeSuffixes{Suffix{"ms", kMillisecond}, Suffix{"s", 1000 * kMillisecond}, Suffix{"m", 60'000 * kMillisecond},
                                   Suffix{"h", 3'600'000 * kMillisecond}};
constexpr double kLongest = 30.0 * 24 * 3600 * 1000 * static_cast<double>(kMillisecond);
constexpr const char* kShortestText = "1ms";
constexpr const char* kLongestText = "720h";
constexpr const char* kLargestSizeText = "8388607T";

}  // namespace

std::optional<std::int64_t> read_integer(std::string_view text, std::int64_t low, std::int64_t high) {
  const auto value = read_whole<std::int64_t>(text);
  return value && *value >= low && *value <= high ? value : std::nullopt;
}

std::optional<std::uint64_t> read_unsigned(std::string_view text) {
  return read_whole<std::uint64_t>(text);
}

std::optional<std::int64_t> read_byte_size(std::string_view text) {
  const std::int64_t factor = take_suffix(text, kSizeSuffixes);
  const auto value = read_whole<std::int64_t>(text);
  const std::int64_t unit = factor == 0 ? 1 : factor;
  if (!value || *value < 1 || *value > std::numeric_limits<std::int64_t>::max() / unit) {
    return std::nullopt;
  }
  return *value * unit;
}

std::optional<Duration> read_duration(std::string_view text) {
  const std::int64_t factor = take_suffix(text, kTimeSuffixes);
  const auto value = read_whole<double>(text);
  if (!value) {
    return std::nullopt;
  }
  const double nanoseconds = *value * static_cast<double>(factor == 0 ? 1000 * kMillisecond : factor);
  if (!(nanoseconds >= static_cast<double>(kMillisecond) && nanoseconds <= kLongest)) {
    return std::nullopt;  // NaN too
  }
  return Duration(static_cast<std::int64_t>(nanoseconds));
}

std::string nearest_integer(std::string_view text, std::int64_t low, std::uint64_t high) {
  const auto value = read_real(text);
  return value ? nearest_whole(*value, low, high) : std::string();
}

std::string nearest_byte_size(std::string_view text) {
  const std::int64_t factor = take_suffix(text, kSizeSuffixes);
  const auto value = read_real(text);
  if (!value) {
    return {};
  }
  const double bytes = *value * static_cast<double>(factor == 0 ? 1 : factor);
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  return bytes >= static_cast<double>(kMax) ? kLargestSizeText : nearest_whole(bytes, 1, kMax);
}

std::string nearest_duration(std::string_view text) {
  take_suffix(text, kTimeSuffixes);
  const auto value = read_real(text);
  if (!value) {
    return {};
  }
  return *value < 1 ? kShortestText : kLongestText;  // a longer one than 1 of the smallest unit is taken unless it is too long
}

std::string nearest_number(std::string_view text, std::span<const std::string> choices) {
  const auto wanted = read_real(text);
  std::string nearest;
  double distance = std::numeric_limits<double>::infinity();
  for (const std::string& choice : choices) {
    const auto number = read_real(choice);
    if (wanted && number && (nearest.empty() || std::abs(*number - *wanted) < distance)) {
      nearest = choice;
      distance = std::abs(*number - *wanted);
    }
  }
  return nearest;
}

std::optional<bool> read_boolean(std::string_view text) {
  if (text == "true" || text == "yes" || text == "on" || text == "1") {
    return true;
  }
  return text == "false" || text == "no" || text == "off" || text == "0" ? std::optional(false) : std::nullopt;
}

}  // namespace lockstep::daemon
