#include "daemon/api/chat/chat_format.hpp"

#include <iterator>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "daemon/api/chat/chat_request.hpp"
#include "daemon/api/text/json_text.hpp"
#include "daemon/api/text/token_text.hpp"

namespace lockstep::daemon {
namespace {

/// "token", "logprob" and "bytes": the token's own bytes, where its text may be only a part of a character.
void append_token(const model::Tokenizer& tokenizer, std::int32_t token, std::optional<float> log_probability, std::string& out) {
  out += "\"token\":";
  append_json_string(out, token_text(tokenizer, token));
  out += ",\"logprob\":";
  append_json_number(out, log_probability);
  out += ",\"bytes\":[";
  for (const char byte : tokenizer.token_bytes(token)) {
    out += out.back() == '[' ? "" : ",";
    out += std::to_string(static_cast<unsigned>(static_cast<unsigned char>(byte)));
  }
  out += ']';
}

void append_log_probabilities(const model::Tokenizer& tokenizer, const std::vector<TokenRecord>& tokens, std::string& out) {
  out += "{\"content\":[";
  for (const TokenRecord& record : tokens) {
    out += out.back() == '[' ? "{" : ",{";
    append_token(tokenizer, record.token, record.log_probability, out);
    out += ",\"top_logprobs\":[";
    for (const model::TokenLogProbability& likely : record.likeliest) {
      if (likely.token >= 0) {
        out += out.back() == '[' ? "{" : ",{";
        append_token(tokenizer, likely.token, likely.log_probability, out);
        out += '}';
      }
    }
    out += "]}";
  }
  out += "],\"refusal\":null}";
}

class ChatFormat final : public ApiFormat {
 public:
  std::optional<ApiError> read(std::string_view body, const ApiContext& context, GenerationJob& job) const override {
    return read_chat_request(body, context, job);
  }
  std::string_view id_prefix() const override { return "chatcmpl-"; }
  std::string_view object_name(bool chunk) const override { return chunk ? "chat.completion.chunk" : "chat.completion"; }
  std::string_view first_choice_members() const override { return R"("delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null)"; }

  void append_choice(const AnswerHead& head, const AnswerPiece& piece, bool chunk, std::string& out) const override {
    fmt::format_to(std::back_inserter(out), "\"index\":{},", piece.index);
    if (!chunk) {
      out += R"("message":{"role":"assistant","content":)";
      append_json_string(out, piece.text->text);
      out += R"(,"refusal":null})";
    } else if (piece.text->text.empty()) {
      out += "\"delta\":{}";
    } else {
      out += "\"delta\":{\"content\":";
      append_json_string(out, piece.text->text);
      out += '}';
    }
    append_choice_end(head, piece, chunk, append_log_probabilities, out);
  }
};

}  // namespace

const ApiFormat& chat_format() {
  static const ChatFormat format;
  return format;
}

}  // namespace lockstep::daemon
