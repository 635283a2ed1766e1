#include "daemon/http/router.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {

std::string_view Router::label(std::string_view path) const {
  const auto found = std::ranges::find(routes_, path, &Route::path);
  return found == routes_.end() ? kNoRoute : found->path;
}

void Router::dispatch(const std::shared_ptr<Exchange>& exchange) const {
  const HttpRequest& request = exchange->request();
  const std::string_view method = request.method == "HEAD" ? std::string_view("GET") : std::string_view(request.method);
  std::string allowed;
  for (const Route& route : routes_) {
    if (route.path != request.path) {
      continue;
    }
    if (route.method == method) {
      route.handler(exchange);
      return;
    }
    allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", route.method == "GET" ? "GET, HEAD" : route.method);
  }
  if (allowed.empty()) {
    exchange->respond(error_response({.status = 404, .message = "this server has no such path; see docs/api.md for those it has", .code = "not_found"}));
    return;
  }
  HttpResponse response =
      error_response({.status = 405, .message = fmt::format("this path does not take that method; it takes {}", allowed), .code = "method_not_allowed"});
  response.headers.push_back({"Allow", allowed});
  exchange->respond(std::move(response));
}

}  // namespace lockstep::daemon
