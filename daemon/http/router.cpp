#include "daemon/http/router.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {
namespace {

/// The part of `pattern` before its parameter; all of it where it has none.
std::string_view fixed_part(std::string_view pattern) {
  return pattern.substr(0, pattern.find('{'));
}

bool serves(const Route& route, std::string_view path) {
  const std::string_view fixed = fixed_part(route.path);
  return fixed.size() == route.path.size() ? path == route.path : path.starts_with(fixed) && path.size() > fixed.size();
}

std::optional<int> hex_digit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? std::optional(lower - 'a' + 10) : std::nullopt;
}

HttpResponse unauthorized(bool key_given) {
  HttpResponse response =
      error_response({.status = 401,
                      .message = key_given ? "the API key is not one of this server's" : "an API key is needed: send it as \"Authorization: Bearer KEY\"",
                      .code = "invalid_api_key"});
  response.headers.push_back({"WWW-Authenticate", "Bearer"});
  return response;
}

HttpResponse not_found() {
  return error_response({.status = 404, .message = "this server has no such path; GET /openapi.json lists those it has", .code = "not_found"});
}

HttpResponse wrong_method(const std::string& allowed) {
  HttpResponse response =
      error_response({.status = 405, .message = fmt::format("this path does not take that method; it takes {}", allowed), .code = "method_not_allowed"});
  response.headers.push_back({"Allow", allowed});
  return response;
}

}  // namespace

std::optional<std::string> path_parameter(std::string_view pattern, std::string_view path) {
  const std::string_view fixed = fixed_part(pattern);
  if (!path.starts_with(fixed)) {
    return std::nullopt;
  }
  const std::string_view encoded = path.substr(fixed.size());
  std::string decoded;
  for (std::size_t i = 0; i < encoded.size(); ++i) {
    if (encoded[i] != '%') {
      decoded += encoded[i];
      continue;
    }
    const auto high = i + 2 < encoded.size() ? hex_digit(encoded[i + 1]) : std::nullopt;
    const auto low = i + 2 < encoded.size() ? hex_digit(encoded[i + 2]) : std::nullopt;
    if (!high || !low) {
      return std::nullopt;
    }
    decoded += static_cast<char>(*high * 16 + *low);
    i += 2;
  }
  return decoded;
}

RouteMatch Router::match(const HttpRequest& head) const {
  const std::string_view method = head.method == "HEAD" ? std::string_view("GET") : std::string_view(head.method);
  RouteMatch found;
  std::string allowed;
  bool open = false;
  if (head.method == "OPTIONS" && head.path == "*") {  // asks for what the server as a whole can do
    found.answer = HttpResponse{.status = 204, .content_type = "", .headers = {{"Allow", "GET, HEAD, POST, OPTIONS"}}};
    return found;
  }
  for (const Route& route : routes_) {
    if (!serves(route, head.path)) {
      continue;
    }
    found.label = route.path;
    open = open || route.access == Access::kOpen;
    allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", route.method == "GET" ? "GET, HEAD" : route.method);
    if (route.method == method) {
      found.route = &route;
      open = route.access == Access::kOpen;
      break;
    }
  }
  if (!allowed.empty()) {
    allowed += ", OPTIONS";
  }
  if (head.method == "OPTIONS" && !allowed.empty()) {
    found.answer = HttpResponse{.status = 204, .content_type = "", .headers = {{"Allow", allowed}}};
  } else if (!open && !keys_.empty() && !keys_.accepts(head.authorization)) {
    found.answer = unauthorized(!head.authorization.empty());
  } else if (found.route == nullptr) {
    found.answer = allowed.empty() ? not_found() : wrong_method(allowed);
  }
  if (found.answer) {
    found.route = nullptr;
  }
  return found;
}

}  // namespace lockstep::daemon
