#include "daemon/openapi/document.hpp"

#include <algorithm>
#include <cctype>
#include <set>

#include <boost/beast/http/status.hpp>
#include <boost/json.hpp>
#include <fmt/format.h>

#include "daemon/openapi/schemas.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::daemon {
namespace {

namespace json = boost::json;

json::object reference(std::string_view kind, std::string_view name) {
  return {{"$ref", fmt::format("#/components/{}/{}", kind, name)}};
}

json::object content(std::string_view type, json::object schema) {
  json::object by_type;
  by_type[type] = json::object{{"schema", std::move(schema)}};
  return by_type;
}

std::string reason_of(int status) {
  const auto reason = boost::beast::http::obsolete_reason(boost::beast::http::int_to_status(static_cast<unsigned>(status)));
  return {reason.data(), reason.size()};
}

/// "/v1/models/{id}" and "GET": "get_v1_models_id".
std::string operation_id(const Route& route) {
  std::string id;
  std::ranges::transform(route.method, std::back_inserter(id), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const char c : route.path) {
    if (c == '/' || c == '.') {
      id += '_';
    } else if (c != '{' && c != '}') {
      id += c;
    }
  }
  return id;
}

/// An error's object; of a route whose 503 has its own body, as probes have, that instead.
json::object error_response_object(const Route& route, int status) {
  const bool own_body = status == 503 && route.access == Access::kOpen && !route.doc.answer_schema.empty();
  if (!own_body) {
    return reference("responses", fmt::format("Error{}", status));
  }
  json::object either;
  either["anyOf"] = json::array{reference("schemas", route.doc.answer_schema), reference("schemas", "Error")};
  return {{"description", reason_of(status)}, {"content", content("application/json", std::move(either))}};
}

json::object success_object(const Route& route) {
  json::object schema{{"type", "string"}};
  if (!route.doc.answer_schema.empty()) {
    schema = reference("schemas", route.doc.answer_schema);
  }
  json::object by_type = content(route.doc.answer_type, std::move(schema));
  if (route.doc.streams) {
    by_type["text/event-stream"] = json::object{{"schema", json::object{{"type", "string"}}}};
  }
  return {{"description", "OK"}, {"content", std::move(by_type)}};
}

json::object operation(const Route& route, bool needs_key) {
  json::object result;
  result["operationId"] = operation_id(route);
  result["summary"] = route.doc.summary;
  result["security"] = needs_key && route.access == Access::kKey ? json::array{json::object{{"apiKey", json::array{}}}} : json::array{};
  if (const auto begin = route.path.find('{'); begin != std::string_view::npos) {
    const std::string_view name = route.path.substr(begin + 1, route.path.size() - begin - 2);
    json::object parameter{{"name", name}, {"in", "path"}, {"required", true}, {"schema", json::object{{"type", "string"}, {"minLength", 1}}}};
    result["parameters"] = json::array{std::move(parameter)};
  }
  if (!route.doc.request_schema.empty()) {
    result["requestBody"] = json::object{{"required", true}, {"content", content("application/json", reference("schemas", route.doc.request_schema))}};
  }
  json::object responses;
  responses["200"] = success_object(route);
  std::set<int> statuses(route.doc.error_statuses.begin(), route.doc.error_statuses.end());
  for (const int status : front_door_statuses(route.access, needs_key)) {
    statuses.insert(status);
  }
  for (const int status : statuses) {
    responses[std::to_string(status)] = error_response_object(route, status);
  }
  result["responses"] = std::move(responses);
  return result;
}

json::object path_item(std::span<const Route> routes, std::string_view path, bool needs_key) {
  json::object item;
  for (const Route& route : routes) {
    if (route.path != path) {
      continue;
    }
    std::string method(route.method);
    std::ranges::transform(method, method.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    item[method] = operation(route, needs_key);
  }
  return item;
}

json::object error_responses() {
  json::object responses;
  for (const int status : {400, 401, 403, 404, 408, 413, 415, 417, 429, 431, 500, 501, 503, 504}) {
    json::object response{{"description", reason_of(status)}, {"content", content("application/json", reference("schemas", "Error"))}};
    if (status == 429 || status == 503) {
      response["headers"] = json::object{{"Retry-After", json::object{{"schema", json::object{{"type", "integer"}}}}}};
    }
    responses[fmt::format("Error{}", status)] = std::move(response);
  }
  return responses;
}

json::object all_schemas() {
  json::object schemas;
  for (const ApiSchema& schema : api_schemas()) {
    json::object object = json::parse(schema.text).get_object();
    if (!schema.base.empty()) {
      json::object& properties = object["properties"].get_object();
      for (const json::key_value_pair& inherited : schemas.at(schema.base).at("properties").get_object()) {
        properties.insert(inherited);
      }
    }
    schemas[schema.name] = std::move(object);
  }
  return schemas;
}

}  // namespace

std::vector<int> front_door_statuses(Access access, bool needs_key) {
  std::vector<int> statuses{400, 403, 408, 413, 415, 417, 431, 501, 503, 504};
  if (needs_key && access == Access::kKey) {
    statuses.insert(statuses.begin() + 1, 401);
  }
  return statuses;
}

std::string openapi_document(std::span<const Route> routes, const OpenApiOptions& options) {
  const json::object schemas = all_schemas();
  json::object paths;
  for (const Route& route : routes) {
    for (const std::string_view name : {route.doc.request_schema, route.doc.answer_schema}) {
      LOCKSTEP_CHECK(name.empty() || schemas.contains(name), "{} names the schema {}, which is not in daemon/openapi/schemas", route.path, name);
    }
    paths[route.path] = path_item(routes, route.path, options.needs_key);
  }
  json::object components{{"schemas", schemas}, {"responses", error_responses()}};
  if (options.needs_key) {
    components["securitySchemes"] = json::object{{"apiKey", json::object{{"type", "http"}, {"scheme", "bearer"}}}};
  }
  json::object document;
  document["openapi"] = "3.1.0";
  document["info"] = json::object{{"title", "lockstep"}, {"version", options.version}};
  document["paths"] = std::move(paths);
  document["components"] = std::move(components);
  return json::serialize(document);
}

}  // namespace lockstep::daemon
