#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/tokenizer/splitter.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

#include <fmt/format.h>
#include <pcre2.h>

#include "model/tokenizer/pattern_dialect.hpp"

namespace lockstep::model {

namespace {

constexpr std::size_t kPatternBytesMax = 64U << 10U;

// Steps of one match: a sane pattern looks at each byte a few times. A pattern that backtracks exponentially ends here instead of never.
constexpr std::size_t kStepsBase = 1'000'000;
constexpr std::size_t kStepsPerByte = 16;

struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());  // PCRE2's byte type, zero-terminated by it
}

}  // namespace

void Splitter::Free::operator()(pcre2_real_code_8* code) const {
  pcre2_code_free(code);
}

Result<Splitter> Splitter::create(std::string_view pattern) {
  if (pattern.size() > kPatternBytesMax) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("a pattern of {} bytes, expected at most {}", pattern.size(), kPatternBytesMax)};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string translated, translate_pattern(pattern));
  int code = 0;
  PCRE2_SIZE offset = 0;
  // PCRE2_UCP: \p, \d and case folding by Unicode's tables and not by the C locale.
  std::unique_ptr<pcre2_real_code_8, Free> compiled(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                                                  PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset, nullptr));
  if (compiled == nullptr) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("not a regular expression: {} at byte {} of \"{}\"", message_of(code), offset, translated)};
  }
  std::uint32_t matches_nothing = 0;
  pcre2_pattern_info(compiled.get(), PCRE2_INFO_MATCHEMPTY, &matches_nothing);
  if (matches_nothing != 0) {
    return Error{ErrorCode::kUnsupported, "a pattern that can match the empty text, expected one that takes at least a character"};
  }
  // Where there is no just-in-time compiler for this machine, matching interprets: slower, the same pieces.
  pcre2_jit_compile(compiled.get(), PCRE2_JIT_COMPLETE);
  return Splitter(std::move(compiled));
}

Status Splitter::split(std::string_view text, std::vector<std::string_view>& pieces) const {
  const std::unique_ptr<pcre2_match_data, FreeMatch> data(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, FreeMatch> context(pcre2_match_context_create(nullptr));
  if (data == nullptr || context == nullptr) {
    return Error{ErrorCode::kResourceExhausted, "no memory to split a text"};
  }
  const std::size_t steps = std::min<std::size_t>(kStepsBase + kStepsPerByte * text.size(), std::numeric_limits<std::uint32_t>::max());
  pcre2_set_match_limit(context.get(), static_cast<std::uint32_t>(steps));
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());  // PCRE2's byte type
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
  std::size_t done = 0;
  while (done < text.size()) {
    // The caller checked the text: checking it again at each match would be quadratic.
    constexpr std::uint32_t kOptions = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int code = pcre2_match(code_.get(), subject, text.size(), done, kOptions, data.get(), context.get());
    if (code == PCRE2_ERROR_JIT_STACKLIMIT) {
      // The interpreter keeps its backtracking points on the heap, within PCRE2's own limit.
      code = pcre2_match(code_.get(), subject, text.size(), done, kOptions | PCRE2_NO_JIT, data.get(), context.get());
    }
    if (code == PCRE2_ERROR_NOMATCH) {
      break;
    }
    // With \K or lookbehind a match could start before the last one ended; the translation lets neither do so, and this keeps the loop finite anyway.
    if (code < 0 || bounds[0] < done || bounds[1] <= bounds[0]) {
      return Error{ErrorCode::kResourceExhausted,
                   fmt::format("the tokenizer's pattern failed at byte {} of {}: {}", done, text.size(), code < 0 ? message_of(code) : "an empty match")};
    }
    if (bounds[0] > done) {
      pieces.push_back(text.substr(done, bounds[0] - done));
    }
    pieces.push_back(text.substr(bounds[0], bounds[1] - bounds[0]));
    done = bounds[1];
  }
  if (done < text.size()) {
    pieces.push_back(text.substr(done));
  }
  return {};
}

}  // namespace lockstep::model
