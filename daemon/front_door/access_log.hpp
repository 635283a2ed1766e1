// AccessLog: one line for each request.
#pragma once

#include <string>

#include <spdlog/logger.h>

#include "daemon/http/server.hpp"
#include "daemon/options/options.hpp"

namespace lockstep::daemon {

/// Never a client's text: the route as in the table, a known method, and a request id that was found harmless.
/// Ownership  borrows the logger.      Threads  the Asio thread.
class AccessLog final : public HttpObserver {
 public:
  AccessLog(spdlog::logger& logger, AccessLogLevel level) : logger_(logger), level_(level) {}
  /// At level info.
  void on_response(const ResponseFacts& facts) override;

 private:
  spdlog::logger& logger_;
  AccessLogLevel level_;
};

/// "access remote=127.0.0.1:50000 method=POST route=/v1/completions status=200 bytes=532 seconds=0.0123 request_id=abc"
[[nodiscard]] std::string access_line(const ResponseFacts& facts);

}  // namespace lockstep::daemon
