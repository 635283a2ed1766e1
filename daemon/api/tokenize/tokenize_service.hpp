// TokenizeService: answers POST /tokenize and /detokenize.
#pragma once

#include <cstddef>
#include <memory>

#include "daemon/api/tokenize/tokenize_answers.hpp"
#include "daemon/http/exchange.hpp"

namespace boost::asio {
class io_context;
}

namespace lockstep::daemon {

struct TokenizeOptions {
  TokenizeContext context;
  std::size_t inline_body_bytes = 4096;  ///< a longer body is answered by a thread of its own, so that probes never wait for it
};

/// Ownership  borrows the io_context and what the context names; owns the thread, which is started with the first large body.
/// Threads    the Asio thread.
class TokenizeService {
 public:
  [[nodiscard]] static std::unique_ptr<TokenizeService> create(boost::asio::io_context& io, TokenizeOptions options);
  virtual ~TokenizeService() = default;
  TokenizeService(const TokenizeService&) = delete;
  TokenizeService& operator=(const TokenizeService&) = delete;

  /// Answers now or soon.
  virtual void tokenize(std::shared_ptr<Exchange> exchange) = 0;
  virtual void detokenize(std::shared_ptr<Exchange> exchange) = 0;

 protected:
  TokenizeService() = default;
};

}  // namespace lockstep::daemon
