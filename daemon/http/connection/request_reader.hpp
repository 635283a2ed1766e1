// RequestReader: a request out of bytes. No sockets, so that it can be tested and fuzzed alone. Private to daemon/http.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "daemon/http/exchange.hpp"
#include "daemon/http/server.hpp"

namespace lockstep::daemon {

/// Why a request is not served. After it, nothing in the stream can be told apart from the rest of that request.
struct RequestRefusal {
  int status = 400;
  std::string_view code;
  std::string message;
  std::string_view reason;  ///< as HttpObserver::on_rejected's
};

/// Reads one request after another.      Threads  one.
class RequestReader {
 public:
  enum class Progress { kNeedsMore, kHead, kComplete, kRefused };

  explicit RequestReader(const HttpLimits& limits);
  RequestReader(const RequestReader&) = delete;
  RequestReader& operator=(const RequestReader&) = delete;

  /// Forgets the last request.
  void begin();
  /// Takes what it can of the request from the beginning of `input`; `taken` is how many bytes that were, the rest is to be shown again with more behind it.
  /// kHead comes once per request, before any of the body is taken. Empty lines before the request are taken and are no part of it.
  [[nodiscard]] Progress read(std::string_view input, std::size_t& taken);
  /// Whether anything of the request has come.
  [[nodiscard]] bool has_begun() const { return begun_; }

  [[nodiscard]] const RequestRefusal& refusal() const { return refusal_; }
  /// Valid from kHead on: all but the body. Of a refused request what of it is known, if the head was whole.
  [[nodiscard]] const HttpRequest& head() const { return request_; }
  /// Valid at kComplete, once.
  [[nodiscard]] HttpRequest take_request();
  [[nodiscard]] bool body_follows() const { return !parser_->is_done(); }
  /// Announced by Content-Length; nullopt: chunked.
  [[nodiscard]] std::optional<std::uint64_t> body_bytes() const;
  [[nodiscard]] bool keep_alive() const { return parser_->get().keep_alive(); }
  [[nodiscard]] bool http_1_1() const { return parser_->get().version() >= 11; }
  [[nodiscard]] bool expects_continue() const { return expects_continue_; }
  [[nodiscard]] const std::string& offered_request_id() const { return offered_request_id_; }

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  Progress take_head();
  void note_head();
  Progress refuse(RequestRefusal refusal);
  Progress refuse(boost::system::error_code error);

  HttpLimits limits_;
  std::optional<Parser> parser_;
  std::function<void(std::uint64_t, boost::beast::string_view, boost::system::error_code&)> on_chunk_;  ///< the parser keeps a reference
  std::size_t chunks_ = 0;
  std::size_t head_bytes_ = 0;  ///< that the parser has taken
  bool begun_ = false;
  bool head_taken_ = false;
  bool folded_ = false;  ///< a line of the head continues another
  bool expects_continue_ = false;
  HttpRequest request_;
  std::string offered_request_id_;
  RequestRefusal refusal_;
};

}  // namespace lockstep::daemon
