#include "daemon/http/access/cors.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

constexpr std::size_t kRequestedHeadersMax = 1024;

/// A list of header names that is harmless to send back.
bool is_name_list(std::string_view text) {
  return !text.empty() && text.size() <= kRequestedHeadersMax && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == ',' || c == ' ';
  });
}

}  // namespace

Status check_cors_origin(std::string_view origin) {
  if (origin == "*") {
    return {};
  }
  std::string_view rest = origin;
  for (const std::string_view scheme : {std::string_view("https://"), std::string_view("http://")}) {
    if (origin.starts_with(scheme)) {
      rest.remove_prefix(scheme.size());
    }
  }
  const bool has_host = rest.size() < origin.size() && !rest.empty() && rest.front() != ':';
  const bool plain = std::ranges::all_of(
      rest, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_' || c == ':' || c == '[' || c == ']'; });
  if (!has_host || !plain) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("--cors-allow-origin {}: expected * or an origin as browsers send it: https://host or https://host:port, in lower case, without a path",
                    origin)};
  }
  return {};
}

Cors::Cors(std::vector<std::string> origins) : origins_(std::move(origins)), any_(std::ranges::find(origins_, "*") != origins_.end()) {}

void Cors::add_headers(const HttpRequest& request, std::vector<HttpHeader>& headers) const {
  if (origins_.empty()) {
    return;
  }
  if (!any_) {
    headers.push_back({"Vary", "Origin"});  // also where it is not allowed: a cache must not give one origin's answer to another
  }
  if (request.origin.empty() || (!any_ && std::ranges::find(origins_, request.origin) == origins_.end())) {
    return;
  }
  headers.push_back({"Access-Control-Allow-Origin", any_ ? "*" : request.origin});
  headers.push_back({"Access-Control-Expose-Headers", "x-request-id, x-lockstep-rank, retry-after"});
  if (request.method == "OPTIONS") {
    headers.push_back({"Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS"});
    // Clients in browsers send headers of their own, so all names are allowed; "*" would not mean Authorization.
    headers.push_back({"Access-Control-Allow-Headers",
                       is_name_list(request.requested_headers) ? request.requested_headers : std::string("authorization, content-type, x-request-id")});
    headers.push_back({"Access-Control-Max-Age", "600"});
  }
}

}  // namespace lockstep::daemon
