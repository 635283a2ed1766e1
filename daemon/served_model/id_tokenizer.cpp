#include "daemon/served_model/id_tokenizer.hpp"

#include <charconv>
#include <string>
#include <vector>

#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

class IdTokenizer final : public model::Tokenizer {
 public:
  explicit IdTokenizer(std::int32_t vocabulary_size) {
    for (std::int32_t id = 0; id < vocabulary_size; ++id) {
      texts_.push_back(fmt::format("{} ", id));
    }
  }

  [[nodiscard]] Result<std::vector<std::int32_t>> encode(std::string_view text) const override {
    std::vector<std::int32_t> ids;
    for (std::size_t at = text.find_first_not_of(' '); at != std::string_view::npos; at = text.find_first_not_of(' ', at)) {
      const std::size_t end = std::min(text.find(' ', at), text.size());
      std::int32_t id = -1;
      const auto [rest, error] = std::from_chars(text.data() + at, text.data() + end, id);
      if (error != std::errc() || rest != text.data() + end || id < 0 || id >= vocabulary_size()) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("offset {}: this model has no tokenizer; a prompt is token ids from 0 to {}, with spaces between", at, vocabulary_size() - 1)};
      }
      ids.push_back(id);
      at = end;
    }
    return ids;
  }

  [[nodiscard]] Result<std::string> decode(std::span<const std::int32_t> ids, bool /*skip_special_tokens*/) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      if (id < 0 || id >= vocabulary_size()) {
        return Error{ErrorCode::kInvalidArgument, fmt::format("token id {} is outside the vocabulary of {}", id, vocabulary_size())};
      }
      text += token_bytes(id);
    }
    return text;
  }

  [[nodiscard]] std::string_view token_bytes(std::int32_t id) const override {
    return id >= 0 && id < vocabulary_size() ? std::string_view(texts_[static_cast<std::size_t>(id)]) : std::string_view();
  }
  [[nodiscard]] bool is_special(std::int32_t /*id*/) const override { return false; }
  [[nodiscard]] std::int32_t vocabulary_size() const override { return static_cast<std::int32_t>(texts_.size()); }

 private:
  std::vector<std::string> texts_;
};

}  // namespace

std::unique_ptr<model::Tokenizer> make_id_tokenizer(std::int32_t vocabulary_size) {
  return std::make_unique<IdTokenizer>(vocabulary_size);
}

}  // namespace lockstep::daemon
