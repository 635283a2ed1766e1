#include "daemon/api/api_format.hpp"

#include <iterator>

#include <fmt/format.h>

#include "daemon/api/text/json_text.hpp"

namespace lockstep::daemon {
namespace {

void append_head(const ApiFormat& format, const AnswerHead& head, bool chunk, std::string& out) {
  out += "{\"id\":";
  append_json_string(out, head.id);
  fmt::format_to(std::back_inserter(out), ",\"object\":\"{}\",\"created\":{},\"model\":", format.object_name(chunk), head.created);
  append_json_string(out, head.model);
  out += ",\"choices\":[";
}

void append_usage(const Usage& usage, std::string& out) {
  fmt::format_to(std::back_inserter(out), "{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{}}}", usage.prompt_tokens, usage.completion_tokens,
                 usage.prompt_tokens + usage.completion_tokens);
}

void end_chunk(bool usage_follows, std::string& out) {
  out += usage_follows ? "}],\"usage\":null}\n\n" : "}]}\n\n";
}

}  // namespace

void append_choice_end(const AnswerHead& head, const AnswerPiece& piece, bool chunk, AppendLogProbabilities append, std::string& out) {
  out += ",\"logprobs\":";
  if (piece.log_probabilities && !(chunk && piece.text->tokens.empty())) {
    append(*head.tokenizer, piece.text->tokens, out);
  } else {
    out += "null";
  }
  out += ",\"finish_reason\":";
  if (piece.finish_reason.empty()) {
    out += "null";
  } else {
    append_json_string(out, piece.finish_reason);
  }
}

std::string answer_body(const ApiFormat& format, const AnswerHead& head, std::span<const AnswerPiece> pieces, const Usage& usage) {
  std::string out;
  append_head(format, head, false, out);
  for (const AnswerPiece& piece : pieces) {
    out += out.back() == '[' ? "{" : ",{";
    format.append_choice(head, piece, false, out);
    out += '}';
  }
  out += "],\"usage\":";
  append_usage(usage, out);
  out += '}';
  return out;
}

void append_chunk(const ApiFormat& format, const AnswerHead& head, const AnswerPiece& piece, bool usage_follows, std::string& out) {
  if (piece.first && !format.first_choice_members().empty()) {
    out += "data: ";
    append_head(format, head, true, out);
    fmt::format_to(std::back_inserter(out), "{{\"index\":{},{}", piece.index, format.first_choice_members());
    end_chunk(usage_follows, out);
  }
  out += "data: ";
  append_head(format, head, true, out);
  out += '{';
  format.append_choice(head, piece, true, out);
  end_chunk(usage_follows, out);
}

void append_usage_chunk(const ApiFormat& format, const AnswerHead& head, const Usage& usage, std::string& out) {
  out += "data: ";
  append_head(format, head, true, out);
  out += "],\"usage\":";
  append_usage(usage, out);
  out += "}\n\n";
}

std::string error_chunk(const ApiError& error) {
  return fmt::format("data: {}\n\n", error_body(error));
}

}  // namespace lockstep::daemon
