#include "daemon/api/completions.hpp"

#include <chrono>
#include <random>
#include <unordered_map>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <fmt/format.h>

#include "daemon/api/completion_body.hpp"
#include "daemon/api/completion_request.hpp"
#include "daemon/api/output_relay.hpp"

namespace lockstep::daemon {
namespace {

using scheduler::FinishReason;
using scheduler::RequestId;

constexpr int kRetryAfterSeconds = 1;

/// One request between its arrival and the last byte of its answer.
struct OpenCompletion {
  std::shared_ptr<Exchange> exchange;  // shared with the connection, which may go first
  CompletionHeader header;
  CompletionUsage usage;
  model::StreamDecoder decoder;
  std::string text;  // of an answer in one piece
  bool stream = false;
  bool include_usage = false;
  bool stream_begun = false;
  bool submitted = false;
};

ApiError finish_error(FinishReason reason, const std::optional<Error>& error) {
  switch (reason) {
    case FinishReason::kRankLost:
      return {.status = 503,
              .message = "a rank of the serving group was lost while this request ran; it can be sent again",
              .code = "rank_lost",
              .retry_after_seconds = kRetryAfterSeconds};
    case FinishReason::kCancelled:
      return {.status = 503,
              .message = "the server stopped before this request was done; it can be sent again",
              .code = "cancelled",
              .retry_after_seconds = kRetryAfterSeconds};
    case FinishReason::kError:
    case FinishReason::kStop:
    case FinishReason::kLength:
      break;
  }
  return error ? api_error_of(*error) : ApiError{.status = 500, .message = "this request failed inside the server", .code = "internal"};
}

bool is_json(std::string_view content_type) {
  constexpr std::string_view kJson = "application/json";
  return content_type.empty() ||
         (content_type.starts_with(kJson) && (content_type.size() == kJson.size() || content_type[kJson.size()] == ';' || content_type[kJson.size()] == ' '));
}

/// What can be known of a request without the engine: an error, or all that the engine needs but id and seed.
struct PreparedCompletion {
  std::optional<ApiError> error;
  scheduler::GenerationRequest request;
  bool seed_given = false;
  bool stream = false;
  bool include_usage = false;
};

/// Parses and tokenizes; on any thread.
PreparedCompletion prepare(std::string_view body, std::string_view served_name, const model::Tokenizer& tokenizer) {
  PreparedCompletion prepared;
  CompletionRequest parsed;
  prepared.error = parse_completion_request(body, served_name, parsed);
  if (prepared.error) {
    return prepared;
  }
  prepared.request.sampling = parsed.sampling;
  prepared.request.max_tokens = parsed.max_tokens;
  prepared.request.ignore_eos = parsed.ignore_eos;
  prepared.request.stop_token_ids = std::move(parsed.stop_token_ids);
  prepared.seed_given = parsed.seed_given;
  prepared.stream = parsed.stream;
  prepared.include_usage = parsed.include_usage;
  if (auto* ids = std::get_if<std::vector<std::int32_t>>(&parsed.prompt)) {
    prepared.request.prompt_token_ids = std::move(*ids);
    return prepared;
  }
  Result<std::vector<std::int32_t>> tokens = tokenizer.encode(std::get<std::string>(parsed.prompt));
  if (tokens) {
    prepared.request.prompt_token_ids = std::move(*tokens);
  } else {
    prepared.error = api_error_of(tokens.error());
    prepared.error->param = "prompt";
  }
  return prepared;
}

class EngineCompletions final : public CompletionService {
 public:
  EngineCompletions(boost::asio::io_context& io, const model::Tokenizer& tokenizer, CompletionOptions options)
      : io_(io), tokenizer_(tokenizer), options_(std::move(options)), relay_(io, [this](std::span<const RelayedEvent> events) { on_events(events); }) {
    std::random_device device;
    seeds_.seed((std::uint64_t{device()} << 32) | device());
    gate_error_ = ApiError{.status = 503, .message = "the model is still being loaded; try again later", .code = "loading", .retry_after_seconds = 1};
  }
  ~EngineCompletions() override { worker_.join(); }

  void handle(std::shared_ptr<Exchange> exchange) override;
  void open_gate(scheduler::Engine& engine) override {
    engine_ = &engine;
    gate_error_.reset();
  }
  void close_gate(ApiError error) override { gate_error_ = std::move(error); }
  void detach_engine() override { engine_ = nullptr; }
  [[nodiscard]] scheduler::OutputSink& sink() override { return relay_; }
  [[nodiscard]] std::size_t open_count() const override { return open_.size(); }

 private:
  void on_prepared(RequestId id, PreparedCompletion prepared);
  void submit(RequestId id, scheduler::GenerationRequest request);
  void on_events(std::span<const RelayedEvent> events);
  void on_token(RequestId id, OpenCompletion& completion, std::int32_t token, bool ends);
  void on_finish(RequestId id, FinishReason reason, const std::optional<Error>& error);
  void send_text(RequestId id, OpenCompletion& completion, std::string_view text, std::string_view finish_reason);
  [[nodiscard]] bool write(RequestId id, OpenCompletion& completion, std::string_view piece);
  void fail(RequestId id, const ApiError& error);
  void forget(RequestId id);

  boost::asio::io_context& io_;
  const model::Tokenizer& tokenizer_;
  CompletionOptions options_;
  std::mt19937_64 seeds_;
  std::optional<ApiError> gate_error_;
  scheduler::Engine* engine_ = nullptr;
  RequestId last_id_ = 0;
  std::unordered_map<RequestId, OpenCompletion> open_;
  OutputRelay relay_;
  boost::asio::thread_pool worker_{1};
};

void EngineCompletions::handle(std::shared_ptr<Exchange> exchange) {
  if (gate_error_) {
    exchange->respond(error_response(*gate_error_));
    return;
  }
  if (!is_json(exchange->request().content_type)) {
    exchange->respond(error_response({.status = 415, .message = "the Content-Type must be application/json", .code = "unsupported_media_type"}));
    return;
  }
  const RequestId id = ++last_id_;
  const std::int64_t created = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  open_.emplace(id, OpenCompletion{.exchange = exchange,
                                   .header = {.id = "cmpl-" + exchange->request_id(), .created = created, .model = options_.served_name},
                                   .decoder = model::StreamDecoder(tokenizer_)});
  exchange->on_abandoned([this, id] { forget(id); });
  TakenBody body = exchange->take_body();
  if (body.text.size() <= options_.inline_body_bytes) {
    on_prepared(id, prepare(body.text, options_.served_name, tokenizer_));
    return;
  }
  boost::asio::post(worker_, [this, id, body = std::move(body)]() mutable {
    PreparedCompletion prepared = prepare(body.text, options_.served_name, tokenizer_);
    body.text = std::string();
    // The body's place travels back: places are counted on the Asio thread.
    boost::asio::post(io_, [this, id, prepared = std::move(prepared), place = std::move(body.place)]() mutable { on_prepared(id, std::move(prepared)); });
  });
}

void EngineCompletions::on_prepared(RequestId id, PreparedCompletion prepared) {
  const auto found = open_.find(id);
  if (found == open_.end()) {
    return;  // its client left meanwhile
  }
  OpenCompletion& completion = found->second;
  if (prepared.error) {
    fail(id, *prepared.error);
    return;
  }
  completion.stream = prepared.stream;
  completion.include_usage = prepared.include_usage;
  completion.usage.prompt_tokens = static_cast<std::int64_t>(prepared.request.prompt_token_ids.size());
  prepared.request.id = id;
  if (!prepared.seed_given) {
    prepared.request.sampling.seed = seeds_();
  }
  submit(id, std::move(prepared.request));
}

void EngineCompletions::submit(RequestId id, scheduler::GenerationRequest request) {
  if (gate_error_) {
    fail(id, *gate_error_);
    return;
  }
  if (const Status accepted = engine_->submit(std::move(request)); !accepted) {
    fail(id, api_error_of(accepted.error()));
    return;
  }
  open_.at(id).submitted = true;
}

void EngineCompletions::on_events(std::span<const RelayedEvent> events) {
  for (const RelayedEvent& event : events) {
    if (event.token >= 0) {
      if (const auto found = open_.find(event.request); found != open_.end()) {
        on_token(event.request, found->second, event.token, event.finish == FinishReason::kStop);
      }
    }
    if (event.finish) {
      on_finish(event.request, *event.finish, event.error);
    }
  }
}

void EngineCompletions::on_token(RequestId id, OpenCompletion& completion, std::int32_t token, bool ends) {
  ++completion.usage.completion_tokens;
  if (ends) {
    return;  // the token that ended the text is no part of it
  }
  const std::string text = completion.decoder.push(token);
  if (!completion.stream) {
    completion.text += text;
  } else if (!text.empty()) {
    send_text(id, completion, text, "");
  }
}

void EngineCompletions::on_finish(RequestId id, FinishReason reason, const std::optional<Error>& error) {
  const auto found = open_.find(id);
  if (found == open_.end()) {
    return;
  }
  if (reason != FinishReason::kStop && reason != FinishReason::kLength) {
    fail(id, finish_error(reason, error));
    return;
  }
  OpenCompletion& completion = found->second;
  const std::string_view reason_name = reason == FinishReason::kStop ? "stop" : "length";
  const std::string rest = completion.decoder.finish();
  if (!completion.stream) {
    const std::shared_ptr<Exchange> exchange = completion.exchange;
    HttpResponse response{.body = completion_body(completion.header, completion.text + rest, reason_name, completion.usage)};
    open_.erase(found);
    exchange->respond(std::move(response));
    return;
  }
  send_text(id, completion, rest, reason_name);
  const auto still_open = open_.find(id);  // a slow reader was forgotten by the last write
  if (still_open == open_.end()) {
    return;
  }
  if (completion.include_usage && !write(id, completion, completion_usage_chunk(completion.header, completion.usage))) {
    return;
  }
  if (write(id, completion, kDoneChunk)) {
    const std::shared_ptr<Exchange> exchange = completion.exchange;
    open_.erase(id);
    exchange->finish();
  }
}

void EngineCompletions::send_text(RequestId id, OpenCompletion& completion, std::string_view text, std::string_view finish_reason) {
  static_cast<void>(write(id, completion, completion_chunk(completion.header, text, finish_reason, completion.include_usage)));
}

/// The head goes out with the first piece: what fails before it can still be answered by a status. False: the completion is gone.
bool EngineCompletions::write(RequestId id, OpenCompletion& completion, std::string_view piece) {
  if (!completion.stream_begun) {
    completion.stream_begun = true;
    completion.exchange->begin_stream({.content_type = "text/event-stream", .headers = {{"Cache-Control", "no-cache"}}});
  }
  if (completion.exchange->write(piece)) {
    return true;
  }
  forget(id);
  return false;
}

void EngineCompletions::fail(RequestId id, const ApiError& error) {
  const auto found = open_.find(id);
  if (found == open_.end()) {
    return;
  }
  const OpenCompletion completion = std::move(found->second);
  open_.erase(found);
  if (!completion.stream_begun) {
    completion.exchange->respond(error_response(error));
  } else if (completion.exchange->write(error_chunk(error))) {
    completion.exchange->finish();
  }
}

/// The client is gone: its blocks are freed at the next step.
void EngineCompletions::forget(RequestId id) {
  const auto found = open_.find(id);
  if (found == open_.end()) {
    return;
  }
  const bool submitted = found->second.submitted;
  open_.erase(found);
  if (submitted && engine_ != nullptr) {
    engine_->cancel(id);
  }
}

}  // namespace

ApiError api_error_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      return {.status = 400, .message = error.message, .code = "invalid_request"};
    case ErrorCode::kResourceExhausted:
      return {.status = 429, .message = error.message, .code = "overloaded", .retry_after_seconds = kRetryAfterSeconds};
    case ErrorCode::kCancelled:
      return {.status = 503, .message = error.message, .code = "draining", .retry_after_seconds = kRetryAfterSeconds};
    case ErrorCode::kTimeout:
    case ErrorCode::kPeerLost:
    case ErrorCode::kDiverged:
      return finish_error(FinishReason::kRankLost, std::nullopt);
    case ErrorCode::kInternal:
      break;
  }
  return {.status = 500, .message = "this request failed inside the server", .code = "internal"};  // the log has the rest
}

std::unique_ptr<CompletionService> CompletionService::create(boost::asio::io_context& io, const model::Tokenizer& tokenizer, CompletionOptions options) {
  return std::make_unique<EngineCompletions>(io, tokenizer, std::move(options));
}

}  // namespace lockstep::daemon
