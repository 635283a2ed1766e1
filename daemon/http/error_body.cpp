#include "daemon/http/error_body.hpp"

#include <boost/json.hpp>

namespace lockstep::daemon {
namespace {

std::string_view error_type(int status) {
  if (status == 429) {
    return "rate_limit_error";
  }
  if (status == 503) {
    return "service_unavailable_error";
  }
  return status >= 500 ? "server_error" : "invalid_request_error";
}

}  // namespace

std::string error_body(const ApiError& error) {
  boost::json::object inner;
  inner["message"] = error.message;
  inner["type"] = error_type(error.status);
  inner["param"] = error.param ? boost::json::value(*error.param) : boost::json::value(nullptr);
  inner["code"] = error.code;
  boost::json::object outer;
  outer["error"] = std::move(inner);
  return boost::json::serialize(outer);
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response{.status = error.status, .body = error_body(error)};
  if (error.retry_after_seconds > 0) {
    response.headers.push_back({"Retry-After", std::to_string(error.retry_after_seconds)});
  }
  return response;
}

}  // namespace lockstep::daemon
