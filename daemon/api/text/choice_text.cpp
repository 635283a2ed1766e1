#include "daemon/api/text/choice_text.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace lockstep::daemon {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

std::int64_t character_count(std::string_view text) {
  return std::ranges::count_if(text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U; });
}

}  // namespace

ChoiceText::ChoiceText(const model::Tokenizer& tokenizer, const ChoiceTextOptions& options, std::string echo)
    : prompt_decoder_(std::in_place, tokenizer, false),
      decoder_(tokenizer),
      finder_(options.stop_strings, options.includes_stop_string),
      min_tokens_(options.min_tokens),
      log_probabilities_(options.log_probabilities),
      shown_(std::move(echo)),
      echo_bytes_left_(shown_.size()),
      decoded_characters_(character_count(shown_)) {}

void ChoiceText::push_prompt(std::int32_t token, std::optional<float> log_probability, std::span<const model::TokenLogProbability> likeliest) {
  constexpr std::ptrdiff_t kBeforeText = -1;
  const std::string shown = prompt_decoder_->push(token);
  const std::string_view before = prompt_decoder_->broke_character() ? kReplacement : std::string_view();
  waiting_.push_back({.record = {.token = token,
                                 .log_probability = log_probability,
                                 .text_offset = decoded_characters_ + character_count(before),
                                 .likeliest = {likeliest.begin(), likeliest.end()}},
                      .begin = kBeforeText});
  show_prompt(shown);
}

void ChoiceText::show_prompt(std::string_view text) {
  shown_ += text;
  echo_bytes_left_ += text.size();
  decoded_characters_ += character_count(text);
}

void ChoiceText::end_prompt() {
  if (prompt_decoder_) {
    show_prompt(prompt_decoder_->finish());
    prompt_decoder_.reset();
  }
}

void ChoiceText::push(std::int32_t token, float log_probability, std::span<const model::TokenLogProbability> likeliest) {
  if (stopped()) {
    return;
  }
  end_prompt();
  ++token_count_;
  const std::string shown = decoder_.push(token);
  if (log_probabilities_) {
    const std::string_view before = decoder_.broke_character() ? kReplacement : std::string_view();
    waiting_.push_back({.record = {.token = token,
                                   .log_probability = log_probability,
                                   .text_offset = decoded_characters_ + character_count(before),
                                   .likeliest = {likeliest.begin(), likeliest.end()}},
                        .begin = static_cast<std::ptrdiff_t>(decoded_bytes_ + before.size())});
  }
  show(shown);
}

void ChoiceText::finish() {
  if (!finished_) {
    end_prompt();
    show(decoder_.finish());
    finder_.finish(shown_);
    finished_ = true;
  }
}

void ChoiceText::show(std::string_view text) {
  decoded_bytes_ += text.size();
  decoded_characters_ += character_count(text);
  if (token_count_ > min_tokens_) {
    finder_.push(text, shown_);
  } else {
    shown_ += text;
  }
}

TextPiece ChoiceText::take() {
  TextPiece piece{.text = std::move(shown_)};
  shown_.clear();
  taken_bytes_ += piece.text.size() - std::exchange(echo_bytes_left_, 0);
  // A token that a stop string cut off whole is never shown; one without text at the very end is.
  const bool all = finished_ && !stopped();
  const auto last =
      std::ranges::find_if(waiting_, [this, all](const Waiting& token) { return !all && token.begin >= static_cast<std::ptrdiff_t>(taken_bytes_); });
  std::transform(waiting_.begin(), last, std::back_inserter(piece.tokens), [](Waiting& token) { return std::move(token.record); });
  waiting_.erase(waiting_.begin(), last);
  return piece;
}

}  // namespace lockstep::daemon
