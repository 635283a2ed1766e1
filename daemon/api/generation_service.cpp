#include "daemon/api/generation_service.hpp"

#include <algorithm>
#include <chrono>
#include <random>
#include <unordered_map>
#include <utility>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <fmt/format.h>

#include "daemon/api/engine_gate.hpp"
#include "daemon/api/error_answers.hpp"
#include "daemon/api/open_generation.hpp"
#include "daemon/api/output_relay.hpp"
#include "daemon/api/request/body_reader.hpp"
#include "daemon/api/request/engine_requests.hpp"

namespace lockstep::daemon {
namespace {

using scheduler::FinishReason;
using scheduler::RequestId;

/// What can be known of a request without the engine.
struct Prepared {
  std::optional<ApiError> error;
  GenerationJob job;
};

Prepared prepare(const ApiFormat& format, std::string_view body, const ApiContext& context) {
  Prepared prepared;
  prepared.error = format.read(body, context, prepared.job);
  return prepared;
}

class EngineGenerationService final : public EngineGated<GenerationService> {
 public:
  EngineGenerationService(boost::asio::io_context& io, GenerationOptions options)
      : io_(io), options_(std::move(options)), relay_(io, [this](std::span<const RelayedEvent> events) { on_events(events); }) {
    std::random_device device;
    seeds_.seed((std::uint64_t{device()} << 32) | device());
  }
  void handle(std::shared_ptr<Exchange> exchange, const ApiFormat& format) override;
  [[nodiscard]] scheduler::OutputSink& sink() override { return relay_; }
  [[nodiscard]] std::size_t open_count() const override { return open_.size(); }

 private:
  void on_prepared(GenerationId id, Prepared prepared);
  void submit(GenerationId id, GenerationJob job);
  void on_events(std::span<const RelayedEvent> events);
  void on_event(GenerationId id, OpenGeneration& generation, const RelayedEvent& event);
  void flush(GenerationId id);
  void fail(GenerationId id, const ApiError& error);
  void forget(GenerationId id);
  void cancel_choices(GenerationId id, const OpenGeneration& generation);

  boost::asio::io_context& io_;
  GenerationOptions options_;
  std::mt19937_64 seeds_;
  GenerationId last_id_ = 0;
  std::unordered_map<GenerationId, OpenGeneration> open_;
  std::vector<GenerationId> touched_;  // in one batch of events
  OutputRelay relay_;
  std::unique_ptr<BodyReader> reader_ = BodyReader::create(io_);  // last: its thread uses the options
};

void EngineGenerationService::handle(std::shared_ptr<Exchange> exchange, const ApiFormat& format) {
  if (refuse(*exchange)) {
    return;
  }
  const GenerationId id = ++last_id_;
  const std::int64_t created = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  AnswerHead head{.id = fmt::format("{}{}", format.id_prefix(), exchange->request_id()),
                  .created = created,
                  .model = options_.context.served_name(),
                  .tokenizer = options_.context.tokenizer};
  open_.emplace(id, OpenGeneration(exchange, format, std::move(head)));
  TakenBody body = exchange->take_body();
  if (body.text.size() <= options_.inline_body_bytes) {
    exchange->on_abandoned([this, id] { forget(id); });
    on_prepared(id, prepare(format, body.text, options_.context));
    return;
  }
  struct Reading {
    TakenBody body;
    Prepared prepared{};
  };
  const auto reading = std::make_shared<Reading>(Reading{.body = std::move(body)});  // by the worker thread and this one, one after the other
  const BodyRead read = reader_->read(
      [this, reading, &format] {
        reading->prepared = prepare(format, reading->body.text, options_.context);
        reading->body.text = std::string();
      },
      [this, id, reading](const std::optional<Error>& failed) {
        reading->body.place.reset();  // places are counted on the Asio thread
        if (failed) {
          fail(id, api_error_of(*failed));
        } else {
          on_prepared(id, std::move(reading->prepared));
        }
      });
  exchange->on_abandoned([this, id, read, reading] {
    forget(id);
    if (read.cancel()) {
      reading->body = {};
    }
  });
}

void EngineGenerationService::on_prepared(GenerationId id, Prepared prepared) {
  if (!open_.contains(id)) {
    return;  // its client left meanwhile
  }
  if (prepared.error) {
    fail(id, *prepared.error);
    return;
  }
  if (!prepared.job.seed_given) {
    prepared.job.sampling.seed = seeds_();
  }
  submit(id, std::move(prepared.job));
}

void EngineGenerationService::submit(GenerationId id, GenerationJob job) {
  if (gate_error_) {
    fail(id, *gate_error_);
    return;
  }
  if (const std::optional<ApiError> refusal = job_refusal(job, engine_->max_request_tokens())) {
    fail(id, *refusal);
    return;
  }
  if (job.max_tokens == 0 && !job.scores_prompts) {  // nothing is to be computed
    OpenGeneration& generation = open_.at(id);
    generation.start(job);
    for (std::size_t choice = 0; choice < generation.choice_count(); ++choice) {
      generation.end(choice, FinishReason::kLength);
    }
    flush(id);
    return;
  }
  std::vector<scheduler::GenerationRequest> requests = make_engine_requests(id, job, engine_->max_request_tokens());
  if (const Status accepted = engine_->submit_all(requests); !accepted) {
    fail(id, api_error_of(accepted.error()));
    return;
  }
  open_.at(id).start(job);
}

void EngineGenerationService::on_events(std::span<const RelayedEvent> events) {
  touched_.clear();
  for (const RelayedEvent& event : events) {
    const GenerationId id = generation_of(event.request);
    if (const auto found = open_.find(id); found != open_.end()) {
      on_event(id, found->second, event);
    }
  }
  for (const GenerationId id : touched_) {
    flush(id);
  }
}

void EngineGenerationService::on_event(GenerationId id, OpenGeneration& generation, const RelayedEvent& event) {
  const std::size_t choice = choice_of(event.request);
  if (generation.ended(choice)) {
    return;  // a stop string did, and the engine did not know yet
  }
  if (event.of_prompt) {
    generation.push_prompt(choice, event);
  } else if (event.token >= 0 && generation.push(choice, event) && engine_ != nullptr) {
    engine_->complete(event.request);
  }
  if (event.finish && *event.finish != FinishReason::kStop && *event.finish != FinishReason::kLength) {
    fail(id, finish_error(*event.finish, event.error));
    return;
  }
  if (event.finish) {
    generation.end(choice, *event.finish);
  }
  if (touched_.empty() || touched_.back() != id) {
    touched_.push_back(id);
  }
}

void EngineGenerationService::flush(GenerationId id) {
  const auto found = open_.find(id);
  if (found == open_.end()) {
    return;  // failed after its last token, or flushed already
  }
  if (!found->second.flush()) {
    forget(id);  // a slow reader
  } else if (found->second.complete()) {
    open_.erase(found);
  }
}

void EngineGenerationService::fail(GenerationId id, const ApiError& error) {
  const auto found = open_.find(id);
  if (found == open_.end()) {
    return;
  }
  OpenGeneration generation = std::move(found->second);
  open_.erase(found);
  cancel_choices(id, generation);
  generation.fail(error);
}

/// The client is gone: its blocks are freed at the next step.
void EngineGenerationService::forget(GenerationId id) {
  const auto found = open_.find(id);
  if (found == open_.end()) {
    return;
  }
  const OpenGeneration generation = std::move(found->second);
  open_.erase(found);
  cancel_choices(id, generation);
}

void EngineGenerationService::cancel_choices(GenerationId id, const OpenGeneration& generation) {
  for (std::size_t choice = 0; engine_ != nullptr && choice < generation.choice_count(); ++choice) {
    if (!generation.ended(choice)) {
      engine_->cancel(request_id_of(id, choice));
    }
  }
}

}  // namespace

std::unique_ptr<GenerationService> GenerationService::create(boost::asio::io_context& io, GenerationOptions options) {
  return std::make_unique<EngineGenerationService>(io, std::move(options));
}

}  // namespace lockstep::daemon
