// Route and Router: the one table from which dispatch, authentication, metrics labels, GET /openapi.json and docs/api.md come.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/http/access/api_keys.hpp"
#include "daemon/http/exchange.hpp"

namespace lockstep::daemon {

using Handler = std::function<void(std::shared_ptr<Exchange>)>;

/// Who may use a route once API keys are set. Who says nothing gets the strict one.
enum class Access { kKey, kOpen };

/// What GET /openapi.json says of a route. Schemas are named as in daemon/openapi/schemas.cpp.
struct RouteDoc {
  std::string_view summary;                           ///< a few words, as in docs/api.md
  std::string_view request_schema;                    ///< of the JSON body; "": takes none
  std::string_view answer_schema;                     ///< of the body of 200; "": text
  std::string_view answer_type = "application/json";  ///< of 200
  bool streams = false;                               ///< 200 may be text/event-stream instead
  std::vector<int> error_statuses{};                  ///< of the handler itself; those of the front door are every route's
};

/// One line of the table.
struct Route {
  std::string_view path;    ///< compared whole; a last segment "{name}" takes all that is left, slashes too, and at least one character
  std::string_view method;  ///< "GET" (answers HEAD too) or "POST"
  Handler handler;
  Access access = Access::kKey;
  RouteDoc doc{};
};

/// Label of requests that no route serves.
inline constexpr std::string_view kNoRoute = "none";

/// Where a request goes.
struct RouteMatch {
  const Route* route = nullptr;          ///< null: `answer` is all there is
  std::optional<HttpResponse> answer{};  ///< 401, 404, 405, or what OPTIONS gets
  std::string_view label = kNoRoute;     ///< the path as in the table, for metrics and logs: never the client's text, so labels stay few
};

/// What stands in `path` at the place of `pattern`'s last segment "{name}", percent-decoded; nullopt when `path` is not of that form or badly encoded.
[[nodiscard]] std::optional<std::string> path_parameter(std::string_view pattern, std::string_view path);

/// Ownership  owns the handlers.      Threads  the Asio thread.
class Router {
 public:
  /// `keys` without any key: every route is open.
  explicit Router(std::vector<Route> routes, ApiKeys keys = {}) : routes_(std::move(routes)), keys_(std::move(keys)) {}

  /// Decided by the request's head alone, so that nobody uploads a body in vain. With keys set, whatever is not declared open asks for one: also unknown
  /// paths and wrong methods, so that a caller without a key learns nothing. OPTIONS needs none, as browsers send none with it; it tells the methods of a path.
  [[nodiscard]] RouteMatch match(const HttpRequest& head) const;
  [[nodiscard]] const std::vector<Route>& routes() const { return routes_; }
  /// From the next request on.
  void set_keys(ApiKeys keys) { keys_ = std::move(keys); }

 private:
  std::vector<Route> routes_;
  ApiKeys keys_;
};

}  // namespace lockstep::daemon
