// OpenGeneration: one HTTP request for text, between its arrival and the last byte of its answer.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "daemon/api/api_format.hpp"
#include "daemon/api/output_relay.hpp"
#include "daemon/api/request/generation_job.hpp"
#include "daemon/api/text/choice_text.hpp"
#include "daemon/http/exchange.hpp"

namespace lockstep::daemon {

/// Gathers what its choices have to say and sends it: at most one write for each `flush`, however many tokens came.
/// Ownership  shares the exchange with the connection, which may go first; borrows the format.      Threads  the Asio thread.
class OpenGeneration {
 public:
  OpenGeneration(std::shared_ptr<Exchange> exchange, const ApiFormat& format, AnswerHead head)
      : exchange_(std::move(exchange)), format_(&format), head_(std::move(head)) {}

  /// From now on there are choices.
  void start(const GenerationJob& job);
  [[nodiscard]] std::size_t choice_count() const { return choices_.size(); }
  /// An ended choice takes no more events.
  [[nodiscard]] bool ended(std::size_t choice) const { return choices_[choice].ended; }
  /// All choices have ended.
  [[nodiscard]] bool complete() const { return started_ && open_choices_ == 0; }

  /// The prompt's next token, from its second on, with its log probabilities.
  void push_prompt(std::size_t choice, const RelayedEvent& event);
  /// One more token. True when a stop string has ended the choice: the engine need not go on with it.
  [[nodiscard]] bool push(std::size_t choice, const RelayedEvent& event);
  /// The engine has ended the choice by kStop or kLength.
  void end(std::size_t choice, scheduler::FinishReason reason);

  /// Sends what has gathered, and finishes the answer once complete. False: the client is gone.
  [[nodiscard]] bool flush();
  /// Answers with `error`: by a status, or in a stream that has begun by an event, and no [DONE].
  void fail(const ApiError& error);

 private:
  struct Choice {
    ChoiceText text;
    TextPiece whole{};  ///< of an answer in one piece
    std::string_view finish_reason{};
    bool ended = false;
    bool has_chunk = false;
  };
  void emit(std::size_t index, std::string_view finish_reason);
  void begin_stream();
  void respond();

  std::shared_ptr<Exchange> exchange_;
  const ApiFormat* format_;
  AnswerHead head_;
  Usage usage_;
  std::vector<Choice> choices_;
  std::size_t open_choices_ = 0;
  std::string outgoing_;  ///< events not yet sent
  bool started_ = false;
  bool stream_ = false;
  bool include_usage_ = false;
  bool log_probabilities_ = false;
  bool stream_begun_ = false;
};

}  // namespace lockstep::daemon
