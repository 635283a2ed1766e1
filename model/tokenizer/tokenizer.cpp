#include "lockstep/model/tokenizer.hpp"

#include <fmt/format.h>

#include "model/tokenizer/text/normalizer.hpp"
#include "model/tokenizer/text/utf8.hpp"
#include "model/tokenizer/tokenizer_file.hpp"

namespace lockstep::model {

namespace {

/// One call of encode: its buffers, and what it has found so far.
class Encoding {
 public:
  explicit Encoding(const TokenizerParts& parts) : parts_(parts) {}

  Result<std::vector<std::int32_t>> run(std::string_view text) {
    LOCKSTEP_RETURN_IF_ERROR(between_added_tokens(parts_.raw_added, text, [this](std::string_view stretch) { return normalized(stretch); }));
    return std::move(ids_);
  }

 private:
  /// Takes the added tokens out of `text` and gives each stretch between them to `next`.
  template <typename Next>
  Status between_added_tokens(const AddedTokenFinder& finder, std::string_view text, Next next) {
    std::size_t done = 0;
    while (const std::optional<AddedTokenFinder::Match> match = finder.find(text, done)) {
      LOCKSTEP_RETURN_IF_ERROR(next(text.substr(done, match->begin - done)));
      ids_.push_back(match->id);
      done = match->end;
    }
    return next(text.substr(done));
  }

  /// Added tokens cut the text before it is normalized: a combining mark behind one does not reach over it.
  Status normalized(std::string_view stretch) {
    if (stretch.empty()) {
      return {};
    }
    std::string changed;
    if (parts_.normalize_nfc) {
      changed = normalize_nfc(stretch);
      stretch = changed;
    }
    return between_added_tokens(parts_.normalized_added, stretch, [this](std::string_view plain) { return words(plain); });
  }

  Status words(std::string_view plain) {
    if (plain.empty()) {
      return {};
    }
    pieces_.assign(1, plain);
    for (const Splitter& splitter : parts_.splitters) {
      finer_.clear();
      for (const std::string_view piece : pieces_) {
        LOCKSTEP_RETURN_IF_ERROR(splitter.split(piece, finer_));
      }
      pieces_.swap(finer_);
    }
    for (const std::string_view piece : pieces_) {
      parts_.merger.merge(piece, scratch_, ids_);
    }
    return {};
  }

  const TokenizerParts& parts_;
  std::vector<std::int32_t> ids_;
  std::vector<std::string_view> pieces_;
  std::vector<std::string_view> finer_;
  Merger::Scratch scratch_;
};

class BytePairTokenizer final : public Tokenizer {
 public:
  explicit BytePairTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {}

  [[nodiscard]] Result<std::vector<std::int32_t>> encode(std::string_view text) const override {
    if (const std::size_t valid = valid_utf8_prefix(text); valid != text.size()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("the text is not UTF-8: byte {} of {} is 0x{:02x}, expected a character", valid, text.size(),
                                                            static_cast<unsigned>(static_cast<unsigned char>(text[valid])))};
    }
    return Encoding(parts_).run(text);
  }

  [[nodiscard]] Result<std::string> decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const override {
    std::string bytes;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const TokenEntry* entry = find(ids[i]);
      if (entry == nullptr) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("token id {} at position {} is not in the vocabulary, expected 0 to {}", ids[i], i, parts_.tokens.size() - 1)};
      }
      if (!(skip_special_tokens && entry->special)) {
        bytes += entry->bytes;
      }
    }
    std::string text;
    append_lossy(bytes, false, text);
    return text;
  }

  [[nodiscard]] std::string_view token_bytes(std::int32_t id) const override {
    const TokenEntry* entry = find(id);
    return entry == nullptr ? std::string_view() : std::string_view(entry->bytes);
  }

  [[nodiscard]] bool is_special(std::int32_t id) const override {
    const TokenEntry* entry = find(id);
    return entry != nullptr && entry->special;
  }

  [[nodiscard]] std::int32_t vocabulary_size() const override { return static_cast<std::int32_t>(parts_.tokens.size()); }

 private:
  /// The entry of `id`, or null where there is none: beyond the table, or in a gap of it.
  [[nodiscard]] const TokenEntry* find(std::int32_t id) const {
    const auto index = static_cast<std::size_t>(id);  // a negative id becomes huge
    return index < parts_.tokens.size() && parts_.tokens[index].known ? &parts_.tokens[index] : nullptr;
  }

  TokenizerParts parts_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::open(const std::filesystem::path& tokenizer_json) {
  LOCKSTEP_ASSIGN_OR_RETURN(TokenizerParts parts, read_tokenizer_file(tokenizer_json));
  return std::unique_ptr<Tokenizer>(std::make_unique<BytePairTokenizer>(std::move(parts)));
}

std::string StreamDecoder::push(std::int32_t id) {
  broke_character_ = false;
  if (skip_special_tokens_ && tokenizer_->is_special(id)) {
    return {};
  }
  const bool continues = !pending_.empty();
  pending_ += tokenizer_->token_bytes(id);
  broke_character_ = continues && next_utf8(pending_).kind == Utf8Step::Kind::kInvalid;
  std::string piece;
  pending_.erase(0, append_lossy(pending_, true, piece));
  return piece;
}

std::string StreamDecoder::finish() {
  std::string piece;
  append_lossy(pending_, false, piece);
  pending_.clear();
  return piece;
}

}  // namespace lockstep::model
