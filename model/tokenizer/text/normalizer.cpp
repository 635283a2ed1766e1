#include "model/tokenizer/text/normalizer.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include <utf8proc.h>

#include "lockstep/core/check.hpp"

namespace lockstep::model {

namespace {

constexpr auto kFormC = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

/// All characters below U+0300 are in form C whatever stands beside them; their UTF-8 starts with CB at most.
bool is_surely_normal(std::string_view text) {
  return std::ranges::all_of(text, [](char byte) { return static_cast<std::uint8_t>(byte) < 0xCC; });
}

std::vector<std::int32_t> decompose(std::string_view text) {
  std::vector<std::int32_t> points;
  points.reserve(text.size());
  std::array<utf8proc_int32_t, 64> parts{};
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());  // the library's byte type
  for (std::size_t position = 0; position < text.size();) {
    utf8proc_int32_t point = 0;
    const utf8proc_ssize_t length = utf8proc_iterate(bytes + position, static_cast<utf8proc_ssize_t>(text.size() - position), &point);
    LOCKSTEP_CHECK(length > 0, "invalid UTF-8 at byte {} of {}: the caller checks before", position, text.size());
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(point, parts.data(), static_cast<utf8proc_ssize_t>(parts.size()), kFormC, &boundary);
    LOCKSTEP_CHECK(count >= 0 && static_cast<std::size_t>(count) <= parts.size(), "decomposition of U+{:04X} gives {}", point, count);
    points.insert(points.end(), parts.begin(), parts.begin() + count);
    position += static_cast<std::size_t>(length);
  }
  return points;
}

/// Canonical order. utf8proc's own sort is quadratic: a megabyte of combining marks would take minutes, and any client can send one.
void reorder(std::vector<std::int32_t>& points) {
  const auto combining_class = [](std::int32_t point) { return utf8proc_get_property(point)->combining_class; };
  for (auto begin = points.begin(); begin != points.end();) {
    begin = std::find_if(begin, points.end(), [&](std::int32_t point) { return combining_class(point) != 0; });
    const auto end = std::find_if(begin, points.end(), [&](std::int32_t point) { return combining_class(point) == 0; });
    std::stable_sort(begin, end, [&](std::int32_t left, std::int32_t right) { return combining_class(left) < combining_class(right); });
    begin = end;
  }
}

}  // namespace

std::string normalize_nfc(std::string_view text) {
  if (is_surely_normal(text)) {
    return std::string(text);
  }
  std::vector<std::int32_t> points = decompose(text);
  reorder(points);
  const utf8proc_ssize_t count = utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()), kFormC);
  LOCKSTEP_CHECK(count >= 0, "composition of {} code points gives {}", points.size(), count);
  std::string result;
  result.reserve(text.size());
  std::array<utf8proc_uint8_t, 4> encoded{};
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    const utf8proc_ssize_t length = utf8proc_encode_char(points[static_cast<std::size_t>(i)], encoded.data());
    result.append(encoded.begin(), encoded.begin() + length);
  }
  return result;
}

}  // namespace lockstep::model
