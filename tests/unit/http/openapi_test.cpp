// Goal: the API's description names every route with every status.
// Method: the daemon's own table; the document is parsed and compared with it.
#include <set>
#include <string>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "daemon/openapi/document.hpp"
#include "daemon/openapi/schemas.hpp"
#include "daemon/routes.hpp"

namespace lockstep::daemon {
namespace {

namespace json = boost::json;

std::vector<Route> daemon_routes() {
  return make_routes({.version = "1.2.3", .models = {"tiny"}, .max_model_len = 64});
}

json::object document_of(std::span<const Route> routes, bool needs_key = false) {
  return json::parse(openapi_document(routes, {.version = "1.2.3", .needs_key = needs_key})).get_object();
}

/// Keeps what a handler answers.
class AnswerKeeper final : public Exchange {
 public:
  const HttpRequest& request() const override { return request_; }
  const std::string& request_id() const override { return request_.path; }
  TakenBody take_body() override { return {}; }
  void respond(HttpResponse response) override { body = std::move(response.body); }
  void begin_stream(const HttpResponse& /*head*/) override {}
  bool write(std::string_view /*piece*/) override { return false; }
  void finish() override {}
  void on_abandoned(std::function<void()> /*callback*/) override {}

  std::string body;

 private:
  HttpRequest request_;
};

std::string served_document(const std::vector<Route>& routes) {
  const auto route = std::ranges::find(routes, "/openapi.json", &Route::path);
  const auto keeper = std::make_shared<AnswerKeeper>();
  route->handler(keeper);
  return keeper->body;
}

/// Every "$ref" below `value`.
void collect_references(const json::value& value, std::set<std::string>& found) {
  if (const json::object* object = value.if_object()) {
    for (const json::key_value_pair& entry : *object) {
      if (entry.key() == "$ref") {
        found.insert(std::string(entry.value().get_string()));
      } else {
        collect_references(entry.value(), found);
      }
    }
  } else if (const json::array* array = value.if_array()) {
    for (const json::value& entry : *array) {
      collect_references(entry, found);
    }
  }
}

TEST(OpenApi, EveryRouteIsAnOperationWithAllItsStatuses) {
  const std::vector<Route> routes = daemon_routes();
  const json::object document = document_of(routes);
  for (const Route& route : routes) {
    const std::string method = route.method == "GET" ? "get" : "post";
    const json::object& operation = document.at("paths").at(route.path).at(method).get_object();
    std::set<std::string> statuses;
    for (const json::key_value_pair& response : operation.at("responses").get_object()) {
      statuses.insert(std::string(response.key()));
    }
    std::set<std::string> expected{"200", "400", "403", "408", "413", "415", "417", "431", "501", "503", "504"};
    for (const int status : route.doc.error_statuses) {
      expected.insert(std::to_string(status));
    }
    EXPECT_EQ(statuses, expected) << route.path;
    EXPECT_EQ(operation.contains("requestBody"), route.method == "POST") << route.path << " needs a request schema when it is POST";
    EXPECT_FALSE(route.doc.summary.empty()) << route.path;
  }
}

TEST(OpenApi, EveryReferenceLeadsSomewhere) {
  const json::object document = document_of(daemon_routes());
  std::set<std::string> references;
  collect_references(document, references);
  EXPECT_GT(references.size(), 10U);
  for (const std::string& reference : references) {
    boost::system::error_code error;
    json::value(document).find_pointer(reference.substr(1), error);
    EXPECT_FALSE(error) << reference;
  }
}

TEST(OpenApi, KeyIsAskedForExactlyWhereTheRouterDoes) {
  const std::vector<Route> routes = daemon_routes();
  const json::object with_keys = document_of(routes, true);
  const json::object without = document_of(routes);
  EXPECT_FALSE(without.at("components").get_object().contains("securitySchemes"));
  for (const Route& route : routes) {
    const char* method = route.method == "GET" ? "get" : "post";
    const json::object& secured = with_keys.at("paths").at(route.path).at(method).get_object();
    EXPECT_EQ(!secured.at("security").get_array().empty(), route.access == Access::kKey) << route.path;
    EXPECT_EQ(secured.at("responses").get_object().contains("401"), route.access == Access::kKey) << route.path;
    EXPECT_TRUE(without.at("paths").at(route.path).at(method).at("security").get_array().empty()) << route.path;
  }
}

TEST(OpenApi, OnlyProbesAndMetricsAreOpen) {
  std::set<std::string> open;
  for (const Route& route : daemon_routes()) {
    if (route.access == Access::kOpen) {
      open.insert(std::string(route.path));
    }
  }
  EXPECT_EQ(open, (std::set<std::string>{"/health", "/health/live", "/health/ready", "/ready", "/metrics"}));
}

TEST(OpenApi, MetricsWithAnAddressOfTheirOwnAreNotDescribed) {
  const std::vector<Route> routes = make_routes({.version = "1.2.3", .models = {"tiny"}, .metrics_elsewhere = true});
  EXPECT_TRUE(std::ranges::any_of(routes, [](const Route& route) { return route.path == "/metrics"; })) << "they are served there";
  const json::value document = json::parse(served_document(routes));
  EXPECT_FALSE(document.at("paths").get_object().contains("/metrics"));
  EXPECT_TRUE(document.at("paths").get_object().contains("/openapi.json")) << "it describes itself";
}

}  // namespace
}  // namespace lockstep::daemon
