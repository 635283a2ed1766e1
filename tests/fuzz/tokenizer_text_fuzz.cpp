// Goal: the embedded model's tokenizer takes any bytes; pieces of a stream add up to the whole and never cut a character.
// Method: the input is a text, whose encoding decoded is a text that stays as it is; ids drawn from the same bytes decode the same in one piece and token by
// token.
#include <cstdint>
#include <vector>

#include "lockstep/core/check.hpp"
#include "lockstep/model/tokenizer.hpp"
#include "tests/support/memory_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lockstep;
  static const std::unique_ptr<model::Tokenizer> kTokenizer = [] {
    auto opened = model::Tokenizer::open(LOCKSTEP_EMBEDDED_MODEL "/tokenizer.json");
    LOCKSTEP_CHECK(opened.has_value(), "{}", opened.error().message);
    return std::move(*opened);
  }();
  const std::string_view text = fuzz::text_of(data, size);
  if (const auto ids = kTokenizer->encode(text)) {
    const auto decoded = kTokenizer->decode(*ids, false);
    LOCKSTEP_CHECK(decoded.has_value(), "what was encoded cannot be decoded");
    const auto again = kTokenizer->encode(*decoded);
    LOCKSTEP_CHECK(again.has_value(), "what was decoded cannot be encoded");
    const auto twice = kTokenizer->decode(*again, false);
    LOCKSTEP_CHECK(twice && *twice == *decoded, "decoded, encoded and decoded again, the text differs");
  }
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i + 1 < size; i += 2) {
    ids.push_back((data[i] | data[i + 1] << 8) % kTokenizer->vocabulary_size());
  }
  model::StreamDecoder stream(*kTokenizer);
  std::string pieces;
  for (const std::int32_t id : ids) {
    pieces += stream.push(id);
  }
  pieces += stream.finish();
  const auto whole = kTokenizer->decode(ids, true);
  LOCKSTEP_CHECK(whole && *whole == pieces, "pieces of a stream differ from the whole");
  return 0;
}
