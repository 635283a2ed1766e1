// Cors: which pages in browsers may read the server's answers.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "daemon/http/exchange.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

/// "https://host[:port]" or "http://...", as browsers send it, or "*".      Errors  kInvalidArgument naming `origin`.
[[nodiscard]] Status check_cors_origin(std::string_view origin);

/// Without origins nothing is added, and browsers keep pages of other servers from reading answers.
/// Threads  const calls from any.      Source  the Fetch standard, "CORS protocol".
class Cors {
 public:
  explicit Cors(std::vector<std::string> origins);
  /// Adds what a browser wants to see on the answer to `request`; on that to a preflight also what the page may send.
  void add_headers(const HttpRequest& request, std::vector<HttpHeader>& headers) const;

 private:
  std::vector<std::string> origins_;
  bool any_ = false;
};

}  // namespace lockstep::daemon
