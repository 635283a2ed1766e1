// Router: the one table from which dispatch and the metrics' route labels come.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/http/exchange.hpp"

namespace lockstep::daemon {

using Handler = std::function<void(std::shared_ptr<Exchange>)>;

/// One line of the table.
struct Route {
  std::string_view path;    ///< compared whole
  std::string_view method;  ///< "GET" (answers HEAD too) or "POST"
  Handler handler;
};

/// Label of requests that no route serves.
inline constexpr std::string_view kNoRoute = "none";

/// Ownership  owns the handlers.      Threads  const calls from any; handlers run on the Asio thread.
class Router {
 public:
  explicit Router(std::vector<Route> routes) : routes_(std::move(routes)) {}

  /// The route's path for metrics, or kNoRoute: never the client's text, so labels stay few.
  [[nodiscard]] std::string_view label(std::string_view path) const;
  /// Calls the handler, or answers 404 or 405 with Allow.
  void dispatch(const std::shared_ptr<Exchange>& exchange) const;
  [[nodiscard]] const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

}  // namespace lockstep::daemon
