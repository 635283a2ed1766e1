// Goal: no tokenizer.json makes reading it, or the tokenizer that it describes, go outside its tables.
// Method: the input is the file and, after a zero byte, a text; what the file gives must encode it, and decode what it encoded.
#include <cstdint>

#include "lockstep/core/check.hpp"
#include "lockstep/model/tokenizer.hpp"
#include "tests/support/memory_file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lockstep;
  std::string_view rest = fuzz::text_of(data, size);
  const fuzz::MemoryFile file(fuzz::take_until(rest, '\0'));
  const Result<std::unique_ptr<model::Tokenizer>> tokenizer = model::Tokenizer::open(file.path());
  if (!tokenizer) {
    LOCKSTEP_CHECK(!tokenizer.error().message.empty(), "a refusal without a reason");
    return 0;
  }
  const auto ids = (*tokenizer)->encode(rest);
  if (!ids) {
    return 0;
  }
  for (const std::int32_t id : *ids) {
    LOCKSTEP_CHECK(id >= 0 && id < (*tokenizer)->vocabulary_size(), "id {} of {}", id, (*tokenizer)->vocabulary_size());
  }
  LOCKSTEP_CHECK((*tokenizer)->decode(*ids, false).has_value(), "what was encoded cannot be decoded");
  return 0;
}
