#include "daemon/api/open_generation.hpp"

#include <iterator>
#include <utility>

namespace lockstep::daemon {

using scheduler::FinishReason;

void OpenGeneration::start(const GenerationJob& job) {
  stream_ = job.stream;
  include_usage_ = job.include_usage;
  log_probabilities_ = job.sampling.log_probabilities >= 0;
  const ChoiceTextOptions options{.stop_strings = job.stop_strings,
                                  .includes_stop_string = job.includes_stop_string,
                                  .min_tokens = job.min_tokens,
                                  .log_probabilities = log_probabilities_};
  choices_.reserve(job.choice_count());
  for (std::size_t prompt = 0; prompt < job.prompts.size(); ++prompt) {
    usage_.prompt_tokens += static_cast<std::int64_t>(job.prompts[prompt].size());
    for (std::int32_t i = 0; i < job.choices_per_prompt; ++i) {
      choices_.push_back({.text = ChoiceText(*head_.tokenizer, options, job.echoes.empty() ? std::string() : job.echoes[prompt])});
      if (job.scores_prompts) {
        choices_.back().text.push_prompt(job.prompts[prompt].front(), std::nullopt, {});
      }
    }
  }
  open_choices_ = choices_.size();
  started_ = true;
}

void OpenGeneration::push_prompt(std::size_t choice, const RelayedEvent& event) {
  choices_[choice].text.push_prompt(event.token, event.log_probability, event.likeliest);
}

bool OpenGeneration::push(std::size_t choice, const RelayedEvent& event) {
  ++usage_.completion_tokens;
  if (event.finish == FinishReason::kStop) {
    return false;  // the token that ends the text is no part of it
  }
  ChoiceText& text = choices_[choice].text;
  text.push(event.token, event.log_probability, event.likeliest);
  if (text.stopped()) {
    end(choice, FinishReason::kStop);
    return !event.finish.has_value();
  }
  if (stream_ && text.has_text()) {
    emit(choice, "");
  }
  return false;
}

void OpenGeneration::end(std::size_t index, FinishReason reason) {
  Choice& choice = choices_[index];
  if (choice.ended) {
    return;
  }
  choice.ended = true;
  --open_choices_;
  choice.text.finish();
  choice.finish_reason = reason == FinishReason::kStop || choice.text.stopped() ? "stop" : "length";
  if (stream_) {
    emit(index, choice.finish_reason);
  } else {
    choice.whole = choice.text.take();
  }
}

/// Adds the choice's next event to what is sent.
void OpenGeneration::emit(std::size_t index, std::string_view finish_reason) {
  Choice& choice = choices_[index];
  const TextPiece text = choice.text.take();
  append_chunk(
      *format_, head_,
      {.index = index, .text = &text, .log_probabilities = log_probabilities_, .finish_reason = finish_reason, .first = !std::exchange(choice.has_chunk, true)},
      include_usage_, outgoing_);
}

bool OpenGeneration::flush() {
  if (!stream_) {
    if (complete()) {
      respond();
    }
    return true;
  }
  if (complete()) {
    if (include_usage_) {
      append_usage_chunk(*format_, head_, usage_, outgoing_);
    }
    outgoing_ += kDoneChunk;
  }
  if (outgoing_.empty()) {
    return true;
  }
  begin_stream();
  const bool written = exchange_->write(outgoing_);
  outgoing_.clear();
  if (written && complete()) {
    exchange_->finish();
  }
  return written;
}

/// The head goes out with the first piece: what fails before it can still be answered by a status.
void OpenGeneration::begin_stream() {
  if (!std::exchange(stream_begun_, true)) {
    exchange_->begin_stream({.content_type = "text/event-stream", .headers = {{"Cache-Control", "no-cache"}}});
  }
}

void OpenGeneration::respond() {
  std::vector<AnswerPiece> pieces;
  pieces.reserve(choices_.size());
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    pieces.push_back(
        {.index = i, .text = &choices_[i].whole, .log_probabilities = log_probabilities_, .finish_reason = choices_[i].finish_reason, .first = true});
  }
  exchange_->respond({.body = answer_body(*format_, head_, pieces, usage_)});
}

void OpenGeneration::fail(const ApiError& error) {
  if (!stream_begun_ && outgoing_.empty()) {
    exchange_->respond(error_response(error));
    return;
  }
  begin_stream();
  if (exchange_->write(outgoing_ + error_chunk(error))) {
    exchange_->finish();
  }
}

}  // namespace lockstep::daemon
