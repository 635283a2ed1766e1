// tokenizer.json, read and checked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lockstep/core/result.hpp"
#include "model/tokenizer/added_tokens.hpp"
#include "model/tokenizer/merger.hpp"
#include "model/tokenizer/splitter.hpp"

namespace lockstep::model {

/// One id of the vocabulary.
struct TokenEntry {
  std::string bytes;     ///< what it decodes to
  bool known = false;    ///< false: a gap in the ids
  bool special = false;  ///< left out when special tokens are skipped
};

/// Everything that a tokenizer needs, in the order in which a text passes through it.
struct TokenizerParts {
  AddedTokenFinder raw_added;  ///< found before normalization
  bool normalize_nfc = false;
  AddedTokenFinder normalized_added;  ///< found after it
  std::vector<Splitter> splitters;    ///< each cuts the pieces of the one before
  Merger merger;
  std::vector<TokenEntry> tokens;  ///< [vocabulary_size], by id
};

/// Reads a byte-level BPE tokenizer. `truncation` and `padding` are left aside: limits are the caller's, as in the reference's serving use.
/// Errors  kInvalidArgument, kUnsupported: file, JSON path, found, expected. What would change ids and is not handled is refused, never ignored.
[[nodiscard]] Result<TokenizerParts> read_tokenizer_file(const std::filesystem::path& path);

}  // namespace lockstep::model
