#include "daemon/options/values/values.hpp"

#include <array>
#include <charconv>
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

std::optional<bool> read_boolean(std::string_view text) {
  if (text == "true" || text == "yes" || text == "on" || text == "1") {
    return true;
  }
  return text == "false" || text == "no" || text == "off" || text == "0" ? std::optional(false) : std::nullopt;
}

}  // namespace lockstep::daemon
