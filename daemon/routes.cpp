#include "daemon/routes.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <optional>
#include <utility>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "daemon/api/chat/chat_format.hpp"
#include "daemon/api/completions/completion_format.hpp"
#include "daemon/http/error_body.hpp"
#include "daemon/metrics/forward/forward_timings_body.hpp"
#include "daemon/openapi/document.hpp"
#include "daemon/trace/trace_route.hpp"

namespace lockstep::daemon {
namespace {

std::string version_body(const std::string& version) {
  boost::json::object object;
  object["version"] = version;
  return boost::json::serialize(object);
}

boost::json::object model_object(const RouteParts& parts, std::string_view name, std::int64_t created) {
  boost::json::object model;
  model["id"] = name;
  model["object"] = "model";
  model["created"] = created;
  model["owned_by"] = "lockstep";
  model["max_model_len"] = parts.max_model_len;
  return model;
}

std::string models_body(const RouteParts& parts, std::int64_t created) {
  boost::json::object list;
  list["object"] = "list";
  boost::json::array& models = list["data"].emplace_array();
  for (const std::string& name : parts.models) {
    models.push_back(model_object(parts, name, created));
  }
  return boost::json::serialize(list);
}

constexpr std::string_view kModelPath = "/v1/models/{id}";

Handler model_by_id(const RouteParts& parts, std::int64_t created) {
  return [parts, created](const std::shared_ptr<Exchange>& exchange) {
    const std::optional<std::string> name = path_parameter(kModelPath, exchange->request().path);
    if (name && std::ranges::find(parts.models, *name) != parts.models.end()) {
      exchange->respond({.body = boost::json::serialize(model_object(parts, *name, created))});
    } else {
      exchange->respond(error_response({.status = 404,
                                        .message = fmt::format("this server has no such model; it serves \"{}\"", parts.models.front()),
                                        .code = "model_not_found",
                                        .param = "model"}));
    }
  };
}

/// A handler that always gives the same answer.
Handler fixed(std::string body) {
  return [body = std::move(body)](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.body = body}); };
}

/// What the model is asked.
std::vector<Route> model_routes(const RouteParts& parts) {
  const Handler completions = [service = parts.generation](std::shared_ptr<Exchange> exchange) { service->handle(std::move(exchange), completion_format()); };
  const Handler chat = [service = parts.generation](std::shared_ptr<Exchange> exchange) { service->handle(std::move(exchange), chat_format()); };
  const Handler tokenize = [service = parts.tokenize](std::shared_ptr<Exchange> exchange) { service->tokenize(std::move(exchange)); };
  const Handler detokenize = [service = parts.tokenize](std::shared_ptr<Exchange> exchange) { service->detokenize(std::move(exchange)); };
  const Handler embeddings = [service = parts.embeddings](std::shared_ptr<Exchange> exchange) { service->handle(std::move(exchange)); };
  return {
      {"/v1/embeddings",
       "POST",
       embeddings,
       Access::kKey,
       {.summary = "a vector for each text",
        .request_schema = "EmbeddingRequest",
        .answer_schema = "EmbeddingList",
        .error_statuses = {400, 404, 415, 429, 500, 503}}},
      {"/v1/completions",
       "POST",
       completions,
       Access::kKey,
       {.summary = "a completion, whole or as a stream",
        .request_schema = "CompletionRequest",
        .answer_schema = "Completion",
        .streams = true,
        .error_statuses = {400, 404, 415, 429, 500, 503}}},
      {"/v1/chat/completions",
       "POST",
       chat,
       Access::kKey,
       {.summary = "an answer in a conversation, whole or as a stream",
        .request_schema = "ChatCompletionRequest",
        .answer_schema = "ChatCompletion",
        .streams = true,
        .error_statuses = {400, 404, 415, 429, 500, 503}}},
      {"/tokenize",
       "POST",
       tokenize,
       Access::kKey,
       {.summary = "the token ids of a text or a conversation",
        .request_schema = "TokenizeRequest",
        .answer_schema = "Tokenization",
        .error_statuses = {400, 404, 415, 500}}},
      {"/detokenize",
       "POST",
       detokenize,
       Access::kKey,
       {.summary = "the text of token ids", .request_schema = "DetokenizeRequest", .answer_schema = "Detokenization", .error_statuses = {400, 404, 415, 500}}},
  };
}

}  // namespace

std::vector<Route> make_routes(const RouteParts& parts) {
  const Handler health = [life = parts.life](const std::shared_ptr<Exchange>& exchange) { exchange->respond(life->health_response()); };
  const Handler ready = [life = parts.life](const std::shared_ptr<Exchange>& exchange) { exchange->respond(life->ready_response()); };
  const Handler metrics = [life = parts.life, source = parts.metrics](const std::shared_ptr<Exchange>& exchange) {
    life->update_metrics();
    exchange->respond({.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = source->text()});
  };
  const Handler forward_timings = [tracker = parts.forward_timings](const std::shared_ptr<Exchange>& exchange) {
    exchange->respond({.body = forward_timings_body(*tracker)});
  };
  const std::int64_t created = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  const RouteDoc health_doc{
      .summary = "200 while the rank is sound, also while it loads or drains; else 503", .answer_schema = "Health", .error_statuses = {503}};
  const RouteDoc ready_doc{.summary = "200 when the rank takes requests; else 503", .answer_schema = "Health", .error_statuses = {503}};
  std::vector<Route> routes{
      {"/health", "GET", health, Access::kOpen, health_doc},
      {"/health/live", "GET", health, Access::kOpen, health_doc},
      {"/ready", "GET", ready, Access::kOpen, ready_doc},
      {"/health/ready", "GET", ready, Access::kOpen, ready_doc},
      {"/metrics", "GET", metrics, Access::kOpen, {.summary = "metrics in Prometheus' text format", .answer_type = "text/plain"}},
      {"/version", "GET", fixed(version_body(parts.version)), Access::kKey, {.summary = "the version of lockstep", .answer_schema = "Version"}},
      {"/v1/models", "GET", fixed(models_body(parts, created)), Access::kKey, {.summary = "the models that are served", .answer_schema = "ModelList"}},
      {kModelPath, "GET", model_by_id(parts, created), Access::kKey, {.summary = "one model, by its name", .answer_schema = "Model", .error_statuses = {404}}},
      {"/debug/forward_timings",
       "GET",
       forward_timings,
       Access::kKey,
       {.summary = "how long forward passes took, by batch size", .answer_schema = "ForwardTimings"}},
      {"/debug/trace",
       "GET",
       trace_handler({.ring = parts.trace, .worker = parts.worker, .peers = parts.peers, .rank = parts.rank, .rank_count = parts.rank_count}),
       Access::kKey,
       {.summary =
            "the newest steps of all ranks on one clock, ?steps=N, as Chrome-trace JSON for Perfetto; ?rank=R: of that rank alone; ?ranks=local: of this one",
        .answer_schema = "ChromeTrace",
        .error_statuses = {400, 503}}},
      {"/openapi.json", "GET", nullptr, Access::kKey, {.summary = "this API, as OpenAPI 3.1", .answer_schema = "OpenApi"}},
  };
  // The description stays last.
  std::ranges::move(model_routes(parts), std::inserter(routes, std::prev(routes.end())));
  std::vector<Route> described = routes;
  if (parts.metrics_elsewhere) {
    std::erase_if(described, [](const Route& route) { return route.path == "/metrics"; });
  }
  routes.back().handler = fixed(openapi_document(described, {.version = parts.version, .needs_key = parts.needs_key}));
  return routes;
}

}  // namespace lockstep::daemon
