// ApiFormat: one way of asking for generated text and of answering.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/api/request/generation_job.hpp"
#include "daemon/api/text/choice_text.hpp"
#include "daemon/http/error_body.hpp"
#include "lockstep/model/chat_template.hpp"
#include "lockstep/model/generation_defaults.hpp"
#include "lockstep/model/tokenizer.hpp"

namespace lockstep::daemon {

/// What a request is read with. Borrowed; all outlive the service.
struct ApiContext {
  std::vector<std::string> served_names{};  ///< at least one; answers show the first, requests may use any
  const model::Tokenizer* tokenizer = nullptr;
  const model::ChatTemplate* chat_template = nullptr;                       ///< null: the model has none
  std::int32_t vocabulary_size = std::numeric_limits<std::int32_t>::max();  ///< token ids that requests may name: the model's, from 0 on
  model::GenerationDefaults defaults{};                                     ///< of what a request leaves out
  bool refuses_special_tokens = false;                                      ///< in messages of a conversation

  [[nodiscard]] const std::string& served_name() const { return served_names.front(); }
};

/// What all objects of one answer share.
struct AnswerHead {
  std::string id{};          ///< "cmpl-..."
  std::int64_t created = 0;  ///< seconds since 1970
  std::string_view model{};
  const model::Tokenizer* tokenizer = nullptr;
};

/// A whole choice, or the next piece of one.
struct AnswerPiece {
  std::size_t index = 0;
  const TextPiece* text = nullptr;
  bool log_probabilities = false;    ///< asked for
  std::string_view finish_reason{};  ///< "": null
  bool first = false;                ///< of its choice
};

struct Usage {
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
};

/// Ownership  none; objects live as long as the process.      Threads  const calls from any.
class ApiFormat {
 public:
  ApiFormat() = default;
  virtual ~ApiFormat() = default;
  ApiFormat(const ApiFormat&) = delete;
  ApiFormat& operator=(const ApiFormat&) = delete;

  /// Parses, checks and tokenizes. Returns the error to answer, with the field's name in `param`; then `job` is unspecified.
  /// Cost  O(body) and tokenizing; nesting is bounded.
  [[nodiscard]] virtual std::optional<ApiError> read(std::string_view body, const ApiContext& context, GenerationJob& job) const = 0;
  [[nodiscard]] virtual std::string_view id_prefix() const = 0;
  /// "object" of an answer in one piece, and of a stream's chunks.
  [[nodiscard]] virtual std::string_view object_name(bool chunk) const = 0;
  /// The members of one of "choices", without the braces. For a chunk: of what is new.
  virtual void append_choice(const AnswerHead& head, const AnswerPiece& piece, bool chunk, std::string& out) const = 0;
  /// What a stream's first chunk of each choice says before any text; "" for nothing.
  [[nodiscard]] virtual std::string_view first_choice_members() const { return {}; }
};

/// Appends what every choice ends with: "logprobs", written by `append` or null, and "finish_reason".
using AppendLogProbabilities = void (*)(const model::Tokenizer& tokenizer, const std::vector<TokenRecord>& tokens, std::string& out);
void append_choice_end(const AnswerHead& head, const AnswerPiece& piece, bool chunk, AppendLogProbabilities append, std::string& out);

/// An answer in one piece.
[[nodiscard]] std::string answer_body(const ApiFormat& format, const AnswerHead& head, std::span<const AnswerPiece> pieces, const Usage& usage);
/// Appends the SSE event of one piece, and before it that of `first_choice_members` where the piece is its choice's first. `usage_follows`: events carry
/// "usage": null, as OpenAI's do when usage was asked for.
void append_chunk(const ApiFormat& format, const AnswerHead& head, const AnswerPiece& piece, bool usage_follows, std::string& out);
void append_usage_chunk(const ApiFormat& format, const AnswerHead& head, const Usage& usage, std::string& out);
/// An SSE event with the error's object: a stream's status is already sent.
[[nodiscard]] std::string error_chunk(const ApiError& error);
inline constexpr std::string_view kDoneChunk = "data: [DONE]\n\n";

}  // namespace lockstep::daemon
