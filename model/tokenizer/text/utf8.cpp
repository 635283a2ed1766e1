#include "model/tokenizer/text/utf8.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace lockstep::model {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// What may follow a first byte: how many bytes, and the range of the second one (the others are 80..BF). Length 0: no first byte.
struct Lead {
  std::size_t length;
  std::uint8_t second_min;
  std::uint8_t second_max;
};

Lead lead_of(std::uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) {
    return {2, 0x80, 0xBF};
  }
  if (byte >= 0xE0 && byte <= 0xEF) {
    // E0 would allow overlong forms, ED the surrogates.
    return {3, static_cast<std::uint8_t>(byte == 0xE0 ? 0xA0 : 0x80), static_cast<std::uint8_t>(byte == 0xED ? 0x9F : 0xBF)};
  }
  if (byte >= 0xF0 && byte <= 0xF4) {
    // F0 would allow overlong forms, F4 what lies beyond U+10FFFF.
    return {4, static_cast<std::uint8_t>(byte == 0xF0 ? 0x90 : 0x80), static_cast<std::uint8_t>(byte == 0xF4 ? 0x8F : 0xBF)};
  }
  return {0, 0, 0};
}

/// Length of the run of ASCII at the start, eight bytes at a time: most text is only that.
std::size_t ascii_prefix(std::string_view bytes) {
  std::size_t position = 0;
  for (; position + 8 <= bytes.size(); position += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + position, 8);
    if ((word & 0x8080808080808080ULL) != 0) {
      break;
    }
  }
  while (position < bytes.size() && static_cast<std::uint8_t>(bytes[position]) < 0x80) {
    ++position;
  }
  return position;
}

}  // namespace

Utf8Step next_utf8(std::string_view bytes) {
  const auto first = static_cast<std::uint8_t>(bytes[0]);
  if (first < 0x80) {
    return {Utf8Step::Kind::kCharacter, 1};
  }
  const Lead lead = lead_of(first);
  if (lead.length == 0) {
    return {Utf8Step::Kind::kInvalid, 1};
  }
  for (std::size_t i = 1; i < lead.length; ++i) {
    if (i == bytes.size()) {
      return {Utf8Step::Kind::kIncomplete, i};
    }
    const auto byte = static_cast<std::uint8_t>(bytes[i]);
    const std::uint8_t smallest = i == 1 ? lead.second_min : std::uint8_t{0x80};
    const std::uint8_t largest = i == 1 ? lead.second_max : std::uint8_t{0xBF};
    if (byte < smallest || byte > largest) {
      return {Utf8Step::Kind::kInvalid, i};
    }
  }
  return {Utf8Step::Kind::kCharacter, lead.length};
}

std::size_t valid_utf8_prefix(std::string_view bytes) {
  std::size_t position = 0;
  while (true) {
    position += ascii_prefix(bytes.substr(position));
    if (position == bytes.size()) {
      return position;
    }
    const Utf8Step step = next_utf8(bytes.substr(position));
    if (step.kind != Utf8Step::Kind::kCharacter) {
      return position;
    }
    position += step.length;
  }
}

std::size_t append_lossy(std::string_view bytes, bool more_follows, std::string& out) {
  std::size_t position = 0;
  while (true) {
    const std::size_t valid = valid_utf8_prefix(bytes.substr(position));
    out.append(bytes.substr(position, valid));
    position += valid;
    if (position == bytes.size()) {
      return position;
    }
    const Utf8Step step = next_utf8(bytes.substr(position));
    if (step.kind == Utf8Step::Kind::kIncomplete && more_follows) {
      return position;
    }
    out.append(kReplacement);
    position += step.length;
  }
}

}  // namespace lockstep::model
