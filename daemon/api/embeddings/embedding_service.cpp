#include "daemon/api/embeddings/embedding_service.hpp"

#include <algorithm>
#include <exception>
#include <iterator>
#include <limits>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <fmt/format.h>

#include "daemon/api/embeddings/embedding_body.hpp"
#include "daemon/api/embeddings/output_fork.hpp"
#include "daemon/api/engine_gate.hpp"
#include "daemon/api/error_answers.hpp"
#include "daemon/api/output_relay.hpp"
#include "daemon/api/request/body_reader.hpp"
#include "lockstep/core/check.hpp"
#include "lockstep/microbatcher.hpp"

namespace lockstep::daemon {
namespace {

using scheduler::FinishReason;
using scheduler::GenerationRequest;
using scheduler::RequestId;

// The engine's ids name call and input.
using CallId = std::uint64_t;
constexpr unsigned kInputBits = 11;
static_assert(kEmbeddingInputsMax == std::size_t{1} << kInputBits);
constexpr RequestId request_id_of(CallId call, std::size_t input) {
  return kEmbeddingIdBit | call << kInputBits | input;
}
constexpr CallId call_of(RequestId id) {
  return (id & ~kEmbeddingIdBit) >> kInputBits;
}
constexpr std::size_t input_of(RequestId id) {
  return id % kEmbeddingInputsMax;
}

/// Calls whose texts are admitted by one call of the engine, at most.
constexpr std::size_t kAdmittedTogetherMax = 64;

/// What the engine said of one call's texts.
struct Admitted {
  Status status;
};

/// One HTTP request, from its arrival to its answer.
struct OpenCall {
  std::shared_ptr<Exchange> exchange;  // shared with the connection, which may go first
  bool base64 = false;
  std::int64_t prompt_tokens = 0;
  std::vector<std::vector<float>> embeddings;  ///< by input; empty: not there yet
  std::size_t missing = 0;
};

class EngineEmbeddingService final : public EngineGated<EmbeddingService> {
 public:
  EngineEmbeddingService(boost::asio::io_context& io, EmbeddingOptions options)
      : io_(io),
        options_(std::move(options)),
        relay_(io, [this](std::span<const RelayedEvent> events) { on_events(events); }),
        admission_(io.get_executor(), [this](std::vector<Texts> calls) { return admit(std::move(calls)); },
                   {.max_batch_size = kAdmittedTogetherMax, .name = "embeddings"}),
        reader_(BodyReader::create(io)) {}

  void handle(std::shared_ptr<Exchange> exchange) override;
  [[nodiscard]] scheduler::OutputSink& sink() override { return relay_; }
  [[nodiscard]] std::size_t open_count() const override { return open_.size(); }

 private:
  using Texts = std::vector<GenerationRequest>;

  void on_read(CallId id, const std::optional<ApiError>& error, EmbeddingJob job);
  [[nodiscard]] std::optional<ApiError> length_refusal(const EmbeddingJob& job) const;
  [[nodiscard]] std::vector<Admitted> admit(std::vector<Texts> calls);
  void on_admitted(CallId id, std::size_t inputs, const std::exception_ptr& thrown, const Admitted& admitted);
  void on_events(std::span<const RelayedEvent> events);
  void fail(CallId id, const ApiError& error);
  void forget(CallId id);
  void cancel(CallId id, std::size_t inputs);

  boost::asio::io_context& io_;
  EmbeddingOptions options_;
  CallId last_id_ = 0;
  std::unordered_map<CallId, OpenCall> open_;
  OutputRelay relay_;
  AsyncMicrobatcher<Texts, Admitted> admission_;
  std::unique_ptr<BodyReader> reader_;  // last: its thread uses the options
};

void EngineEmbeddingService::handle(std::shared_ptr<Exchange> exchange) {
  if (refuse(*exchange)) {
    return;
  }
  const CallId id = ++last_id_;
  open_.emplace(id, OpenCall{.exchange = exchange});
  struct Reading {
    TakenBody body;
    std::optional<ApiError> error{};
    EmbeddingJob job{};
  };
  auto reading = std::make_shared<Reading>(Reading{.body = exchange->take_body()});  // by the worker thread and this one, one after the other
  const auto read = [this, reading] {
    reading->error = read_embedding_request(reading->body.text, options_.context, reading->job);
    reading->body.text = std::string();
  };
  if (reading->body.text.size() <= options_.inline_body_bytes) {
    exchange->on_abandoned([this, id] { forget(id); });
    read();
    on_read(id, reading->error, std::move(reading->job));
    return;
  }
  const BodyRead waiting = reader_->read(read, [this, id, reading](const std::optional<Error>& failed) {
    reading->body.place.reset();  // places are counted on the Asio thread
    on_read(id, failed ? std::optional(api_error_of(*failed)) : reading->error, std::move(reading->job));
  });
  exchange->on_abandoned([this, id, waiting, reading] {
    forget(id);
    if (waiting.cancel()) {
      reading->body = {};
    }
  });
}

void EngineEmbeddingService::on_read(CallId id, const std::optional<ApiError>& error, EmbeddingJob job) {
  const auto found = open_.find(id);
  if (found == open_.end()) {
    return;  // its client left meanwhile
  }
  if (error) {
    fail(id, *error);
    return;
  }
  if (const auto refusal = length_refusal(job)) {
    fail(id, *refusal);
    return;
  }
  OpenCall& call = found->second;
  call.base64 = job.base64;
  call.missing = job.inputs.size();
  call.embeddings.resize(job.inputs.size());
  Texts texts;
  texts.reserve(job.inputs.size());
  for (std::vector<std::int32_t>& input : job.inputs) {
    call.prompt_tokens += static_cast<std::int64_t>(input.size());
    texts.push_back({.id = request_id_of(id, texts.size()), .prompt_token_ids = std::move(input), .max_tokens = 0, .pooling = options_.pooling});
  }
  const auto done = [this, id, inputs = texts.size()](const std::exception_ptr& thrown, const Admitted& admitted) {
    on_admitted(id, inputs, thrown, admitted);
  };
  admission_.submit(std::move(texts), boost::asio::bind_executor(io_.get_executor(), done));
}

/// By the code that clients know as theirs to shorten a text. The engine would refuse it too, but by words about answers.
std::optional<ApiError> EngineEmbeddingService::length_refusal(const EmbeddingJob& job) const {
  const auto tokens_max = static_cast<std::size_t>(engine_ == nullptr ? std::numeric_limits<std::int32_t>::max() : engine_->max_request_tokens());
  const auto too_long = std::ranges::find_if(job.inputs, [tokens_max](const auto& input) { return input.size() > tokens_max; });
  if (too_long == job.inputs.end()) {
    return std::nullopt;
  }
  return ApiError{.status = 400,
                  .message = fmt::format("text {} of {} has {} tokens, but a text may have {}: shorten it", too_long - job.inputs.begin() + 1,
                                         job.inputs.size(), too_long->size(), tokens_max),
                  .code = "context_length_exceeded",
                  .param = "input"};
}

std::vector<Admitted> EngineEmbeddingService::admit(std::vector<Texts> calls) {
  if (gate_error_ || engine_ == nullptr) {
    const Status closed = Error{ErrorCode::kCancelled, gate_error_ ? gate_error_->message : "this server is stopping"};
    return std::vector<Admitted>(calls.size(), Admitted{closed});
  }
  Texts all;
  std::vector<std::size_t> counts;
  for (Texts& texts : calls) {
    if (!open_.contains(call_of(texts.front().id))) {
      texts.clear();  // its client left meanwhile
    }
    counts.push_back(texts.size());
    all.insert(all.end(), std::make_move_iterator(texts.begin()), std::make_move_iterator(texts.end()));
  }
  const Status together = all.empty() ? Status{} : engine_->submit_all(all);
  if (together || calls.size() == 1) {
    return std::vector<Admitted>(calls.size(), Admitted{together});
  }
  // Nothing was taken. One call that cannot be accepted is no reason to refuse the others.
  std::vector<Admitted> one_by_one;
  std::span<GenerationRequest> rest = all;
  for (const std::size_t count : counts) {
    one_by_one.push_back({count == 0 ? Status{} : engine_->submit_all(rest.first(count))});
    rest = rest.subspan(count);
  }
  return one_by_one;
}

void EngineEmbeddingService::on_admitted(CallId id, std::size_t inputs, const std::exception_ptr& thrown, const Admitted& admitted) {
  if (!open_.contains(id)) {
    cancel(id, inputs);  // its client left meanwhile; the engine ignores ids that it does not know
    return;
  }
  if (thrown) {  // the microbatcher's own: too many wait
    fail(id, api_error_of({ErrorCode::kResourceExhausted, "too many requests for embeddings wait: try again later"}));
  } else if (!admitted.status) {
    fail(id, gate_error_ ? *gate_error_ : api_error_of(admitted.status.error()));
  }
}

void EngineEmbeddingService::on_events(std::span<const RelayedEvent> events) {
  for (const RelayedEvent& event : events) {
    const CallId id = call_of(event.request);
    const auto found = open_.find(id);
    if (found == open_.end() || !event.finish) {
      continue;
    }
    if (*event.finish != FinishReason::kStop) {
      fail(id, finish_error(*event.finish, event.error));
      continue;
    }
    OpenCall& call = found->second;
    call.embeddings[input_of(event.request)] = event.embedding;
    if (--call.missing == 0) {
      const OpenCall done = std::move(call);
      open_.erase(found);
      done.exchange->respond({.body = embedding_body(options_.context.api.served_name(), done.embeddings, done.base64, done.prompt_tokens)});
    }
  }
}

void EngineEmbeddingService::fail(CallId id, const ApiError& error) {
  const auto found = open_.find(id);
  if (found == open_.end()) {
    return;
  }
  const OpenCall call = std::move(found->second);
  open_.erase(found);
  cancel(id, call.embeddings.size());
  call.exchange->respond(error_response(error));
}

/// The client is gone: its blocks are freed at the next step.
void EngineEmbeddingService::forget(CallId id) {
  const auto found = open_.find(id);
  if (found == open_.end()) {
    return;
  }
  const std::size_t inputs = found->second.embeddings.size();
  open_.erase(found);
  cancel(id, inputs);
}

void EngineEmbeddingService::cancel(CallId id, std::size_t inputs) {
  for (std::size_t input = 0; engine_ != nullptr && input < inputs; ++input) {
    engine_->cancel(request_id_of(id, input));
  }
}

}  // namespace

std::unique_ptr<EmbeddingService> EmbeddingService::create(boost::asio::io_context& io, EmbeddingOptions options) {
  return std::make_unique<EngineEmbeddingService>(io, std::move(options));
}

}  // namespace lockstep::daemon
