#include "daemon/routes.hpp"

#include <chrono>
#include <utility>

#include <boost/json.hpp>

namespace lockstep::daemon {
namespace {

std::string version_body(const std::string& version) {
  boost::json::object object;
  object["version"] = version;
  return boost::json::serialize(object);
}

std::string models_body(const RouteParts& parts) {
  boost::json::object model;
  model["id"] = parts.model;
  model["object"] = "model";
  model["created"] = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  model["owned_by"] = "lockstep";
  model["max_model_len"] = parts.max_model_len;
  boost::json::object list;
  list["object"] = "list";
  list["data"] = boost::json::array{std::move(model)};
  return boost::json::serialize(list);
}

/// A handler that always gives the same answer.
Handler fixed(std::string body) {
  return [body = std::move(body)](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.body = body}); };
}

}  // namespace

std::vector<Route> make_routes(const RouteParts& parts) {
  const Handler health = [life = parts.life](const std::shared_ptr<Exchange>& exchange) { exchange->respond(life->health_response()); };
  const Handler ready = [life = parts.life](const std::shared_ptr<Exchange>& exchange) { exchange->respond(life->ready_response()); };
  const Handler metrics = [life = parts.life, source = parts.metrics](const std::shared_ptr<Exchange>& exchange) {
    life->update_metrics();
    exchange->respond({.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = source->text()});
  };
  const Handler completions = [service = parts.completions](std::shared_ptr<Exchange> exchange) { service->handle(std::move(exchange)); };
  return {
      {"/health", "GET", health},
      {"/health/live", "GET", health},
      {"/ready", "GET", ready},
      {"/health/ready", "GET", ready},
      {"/version", "GET", fixed(version_body(parts.version))},
      {"/metrics", "GET", metrics},
      {"/v1/models", "GET", fixed(models_body(parts))},
      {"/v1/completions", "POST", completions},
  };
}

}  // namespace lockstep::daemon
