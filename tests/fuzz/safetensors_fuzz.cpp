// Goal: no header of a weights file reads outside it, overflows a size or takes memory beyond its own length.
// Method: the input is a whole file; what was accepted must keep every promise of the reader's header.
#include <cstdint>
#include <span>

#include "lockstep/core/check.hpp"
#include "model/files/safetensors_header.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lockstep;
  const auto file = std::as_bytes(std::span(data, size));
  const Result<model::SafetensorsHeader> header = model::read_safetensors_header(file, "fuzz");
  if (!header) {
    LOCKSTEP_CHECK(!header.error().message.empty(), "a refusal without a reason");
    return 0;
  }
  for (std::size_t i = 0; i < header->entries.size(); ++i) {
    const model::SafetensorsEntry& entry = header->entries[i];
    LOCKSTEP_CHECK(entry.begin <= entry.end && entry.end <= size, "{} to {} of {} bytes", entry.begin, entry.end, size);
    LOCKSTEP_CHECK(i == 0 || header->entries[i - 1].name < entry.name, "not sorted at {}", i);
    std::uint64_t bits = static_cast<std::uint64_t>(entry.type.bits);
    for (const std::int64_t extent : entry.shape) {
      LOCKSTEP_CHECK(extent >= 0, "extent {}", extent);
      bits *= static_cast<std::uint64_t>(extent);
    }
    LOCKSTEP_CHECK(bits == 8 * (entry.end - entry.begin), "{} bits in {} bytes", bits, entry.end - entry.begin);
  }
  return 0;
}
