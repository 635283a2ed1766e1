#include "model/tokenizer/text/byte_level.hpp"

#include "model/tokenizer/text/utf8.hpp"

namespace lockstep::model {

namespace {

constexpr std::uint32_t kShiftedBase = 0x100;
constexpr std::uint32_t kAlphabetEnd = 0x100 + 68;

constexpr bool stands_for_itself(std::uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

/// Code point of each byte's character.
constexpr std::array<std::uint32_t, 256> code_points() {
  std::array<std::uint32_t, 256> result{};
  std::uint32_t shifted = kShiftedBase;
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    result[byte] = stands_for_itself(byte) ? byte : shifted++;
  }
  return result;
}

/// Byte of each code point below kAlphabetEnd, or -1.
constexpr std::array<std::int16_t, kAlphabetEnd> bytes_by_code_point() {
  std::array<std::int16_t, kAlphabetEnd> result{};
  result.fill(-1);
  const std::array<std::uint32_t, 256> points = code_points();
  for (std::size_t byte = 0; byte < 256; ++byte) {
    result[points[byte]] = static_cast<std::int16_t>(byte);
  }
  return result;
}

constexpr auto kCodePoints = code_points();
constexpr auto kBytes = bytes_by_code_point();

}  // namespace

std::array<std::string, 256> byte_characters() {
  std::array<std::string, 256> result;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const std::uint32_t point = kCodePoints[byte];
    if (point < 0x80) {
      result[byte] = std::string(1, static_cast<char>(point));
    } else {
      result[byte] = {static_cast<char>(0xC0U | point >> 6U), static_cast<char>(0x80U | (point & 0x3FU))};
    }
  }
  return result;
}

TokenBytes token_bytes_of(std::string_view text) {
  TokenBytes result;
  for (std::size_t position = 0; position < text.size();) {
    const Utf8Step step = next_utf8(text.substr(position));
    std::uint32_t point = static_cast<std::uint8_t>(text[position]);
    if (step.kind == Utf8Step::Kind::kCharacter && step.length == 2) {
      point = (point & 0x1FU) << 6U | (static_cast<std::uint8_t>(text[position + 1]) & 0x3FU);
    } else if (step.length > 1 || step.kind != Utf8Step::Kind::kCharacter) {
      point = kAlphabetEnd;
    }
    if (point >= kAlphabetEnd || kBytes[point] < 0) {
      return {std::string(text), false};
    }
    result.bytes.push_back(static_cast<char>(kBytes[point]));
    position += step.length;
  }
  result.in_alphabet = true;
  return result;
}

}  // namespace lockstep::model
