#include "daemon/api/completions/completion_format.hpp"

#include <algorithm>
#include <iterator>
#include <vector>

#include <fmt/format.h>

#include "daemon/api/completions/completion_request.hpp"
#include "daemon/api/text/json_text.hpp"
#include "daemon/api/text/token_text.hpp"

namespace lockstep::daemon {
namespace {

/// {"token": log probability, ...} of the likeliest tokens and the chosen one. Texts that two tokens share are there once. null of a prompt's first token.
void append_likeliest(const model::Tokenizer& tokenizer, const TokenRecord& record, std::string& out) {
  if (!record.log_probability) {
    out += "null";
    return;
  }
  std::vector<std::string> seen;
  const auto append = [&](std::int32_t token, float log_probability) {
    std::string text = token_text_or_bytes(tokenizer, token);
    if (std::ranges::find(seen, text) == seen.end()) {
      out += seen.empty() ? "" : ",";
      append_json_string(out, text);
      out += ':';
      append_json_number(out, log_probability);
      seen.push_back(std::move(text));
    }
  };
  out += '{';
  append(record.token, *record.log_probability);
  for (const model::TokenLogProbability& likely : record.likeliest) {
    if (likely.token >= 0) {
      append(likely.token, likely.log_probability);
    }
  }
  out += '}';
}

template <typename Append>
void append_list(std::string_view name, const std::vector<TokenRecord>& tokens, std::string& out, Append append) {
  fmt::format_to(std::back_inserter(out), "\"{}\":[", name);
  for (const TokenRecord& record : tokens) {
    out += out.back() == '[' ? "" : ",";
    append(record);
  }
  out += ']';
}

void append_log_probabilities(const model::Tokenizer& tokenizer, const std::vector<TokenRecord>& tokens, std::string& out) {
  out += '{';
  append_list("tokens", tokens, out, [&](const TokenRecord& record) { append_json_string(out, token_text_or_bytes(tokenizer, record.token)); });
  out += ',';
  append_list("token_logprobs", tokens, out, [&](const TokenRecord& record) { append_json_number(out, record.log_probability); });
  out += ',';
  append_list("top_logprobs", tokens, out, [&](const TokenRecord& record) { append_likeliest(tokenizer, record, out); });
  out += ',';
  append_list("text_offset", tokens, out, [&](const TokenRecord& record) { out += std::to_string(record.text_offset); });
  out += '}';
}

class CompletionFormat final : public ApiFormat {
 public:
  std::optional<ApiError> read(std::string_view body, const ApiContext& context, GenerationJob& job) const override {
    return read_completion_request(body, context, job);
  }
  std::string_view id_prefix() const override { return "cmpl-"; }
  std::string_view object_name(bool /*chunk*/) const override { return "text_completion"; }

  void append_choice(const AnswerHead& head, const AnswerPiece& piece, bool chunk, std::string& out) const override {
    fmt::format_to(std::back_inserter(out), "\"index\":{},\"text\":", piece.index);
    append_json_string(out, piece.text->text);
    append_choice_end(head, piece, chunk, append_log_probabilities, out);
  }
};

}  // namespace

const ApiFormat& completion_format() {
  static const CompletionFormat format;
  return format;
}

}  // namespace lockstep::daemon
