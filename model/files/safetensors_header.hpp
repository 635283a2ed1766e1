// The header of a safetensors file: which tensor lies where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"

namespace lockstep::model {

/// An element type that the format knows. Sizes in bits: newer types are narrower than a byte.
struct SafetensorsType {
  std::string_view name;
  std::int64_t bits;
};

struct SafetensorsEntry {
  std::string name;
  SafetensorsType type;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  ///< bytes from the start of the file
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  ///< sorted by name, each name once
  std::string_view text;                  ///< the JSON, borrowed from the file
};

/// Reads and checks the header of `file`, whose name is for messages only. Afterwards every entry lies within the file, is exactly as long as its shape and
/// type say, and together they cover all bytes behind the header once. Errors  kInvalidArgument naming file, tensor, expected and found; kUnsupported for an
/// unknown type. Cost    memory in proportion to the header's length, at most 100 MB and 1,000,000 entries.      Source  the safetensors format's description.
[[nodiscard]] Result<SafetensorsHeader> read_safetensors_header(std::span<const std::byte> file, std::string_view file_name);

}  // namespace lockstep::model
