#include "daemon/http/connection/request_reader.hpp"

#include <algorithm>
#include <iterator>
#include <limits>

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

namespace http = boost::beast::http;
using boost::beast::iequals;
using boost::system::error_code;
using Fields = http::fields;

std::string_view to_view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

std::string text_of(const Fields& fields, http::field name) {
  return std::string(to_view(fields[name]));
}

/// Whether the message's length is known: Beast takes a body of another coding, or of none that it knows, for chunked or for empty, and where a proxy reads it
/// otherwise, what follows is a request of somebody else's making.
bool is_framing_known(const Fields& fields) {
  const auto range = fields.equal_range(http::field::transfer_encoding);
  if (range.first == range.second) {
    return true;
  }
  return std::next(range.first) == range.second && iequals(range.first->value(), "chunked");
}

/// Path and query of a target: as it is, or after the authority of the absolute form that proxies send.
std::string_view origin_form(std::string_view target) {
  constexpr std::string_view kScheme = "http://";
  constexpr std::string_view kSecureScheme = "https://";
  std::size_t begin = 0;
  for (const std::string_view scheme : {kScheme, kSecureScheme}) {
    if (target.size() >= scheme.size() &&
        iequals(boost::beast::string_view(target.data(), scheme.size()), boost::beast::string_view(scheme.data(), scheme.size()))) {
      begin = scheme.size();
    }
  }
  if (begin == 0) {
    return target;
  }
  const std::size_t end = target.find_first_of("/?", begin);
  return end == std::string_view::npos ? "/" : target.substr(end);
}

RequestRefusal malformed(std::string message) {
  return {.status = 400, .code = "malformed_http", .message = std::move(message), .reason = "malformed"};
}

/// Of lines that the parser has taken, each whole with those that continue it. A proxy before us may take such a line for a field of its own.
bool has_folded_line(std::string_view lines) {
  return lines.find("\r\n ") != std::string_view::npos || lines.find("\r\n\t") != std::string_view::npos;
}

/// A name or an address, with or without a port, also none: nothing in which a proxy could see another host than the next one does.
bool is_host(std::string_view value) {
  return value.find_first_of(" \t/?#@\\") == std::string_view::npos;
}

/// Whether each of the header's lines of that name, if there is any, says `value`: a proxy before us may have looked at another one than we do.
bool says_only(const Fields& fields, http::field name, boost::beast::string_view value) {
  const auto lines = fields.equal_range(name);
  return std::all_of(lines.first, lines.second, [value](const auto& line) { return line.value().empty() || iequals(line.value(), value); });
}

/// Bytes of the empty lines that `input` begins with. Some clients send one after a body (RFC 9112, 2.2).
std::size_t empty_line_bytes(std::string_view input) {
  constexpr std::string_view kEmptyLine = "\r\n";
  std::size_t bytes = 0;
  while (input.substr(bytes).starts_with(kEmptyLine)) {
    bytes += kEmptyLine.size();
  }
  return bytes;
}

/// What is wrong with a head that can be parsed.
std::optional<RequestRefusal> flaw_of(const http::request_header<>& head) {
  const auto hosts = head.equal_range(http::field::host);
  const auto host_count = std::distance(hosts.first, hosts.second);
  if (host_count > 1 || (host_count == 0 && head.version() >= 11)) {
    return malformed(host_count == 0 ? "the Host header is missing" : "there is more than one Host header");
  }
  if (!is_host(to_view(head[http::field::host]))) {
    return malformed("the Host header is not a name or an address, with or without a port");
  }
  if (!is_framing_known(head)) {
    return RequestRefusal{.status = 501,
                          .code = "unsupported_transfer_encoding",
                          .message = "the only Transfer-Encoding that this server knows is chunked",
                          .reason = "malformed"};
  }
  if (head.version() < 11 && head.count(http::field::transfer_encoding) > 0) {
    return malformed("HTTP/1.0 has no Transfer-Encoding");
  }
  for (const http::field name : {http::field::authorization, http::field::content_type}) {
    if (head.count(name) > 1) {
      return malformed(fmt::format("there is more than one {} header: which of them counts is not defined", to_view(http::to_string(name))));
    }
  }
  if (!says_only(head, http::field::expect, "100-continue")) {
    return RequestRefusal{
        .status = 417, .code = "unsupported_expectation", .message = "the only Expect that this server knows is 100-continue", .reason = "malformed"};
  }
  if (!says_only(head, http::field::content_encoding, "identity")) {
    return RequestRefusal{.status = 415, .code = "unsupported_content_encoding", .message = "request bodies must not be compressed", .reason = "malformed"};
  }
  return std::nullopt;
}

}  // namespace

RequestReader::RequestReader(const HttpLimits& limits) : limits_(limits) {
  on_chunk_ = [this](std::uint64_t /*bytes*/, boost::beast::string_view /*extensions*/, error_code& error) {
    if (++chunks_ > limits_.chunks) {
      error = http::error::body_limit;
    }
  };
  begin();
}

void RequestReader::begin() {
  parser_.emplace();
  // The limit is kept in `read`: the parser's counts the first line and what comes in one piece each for itself.
  parser_->header_limit(std::numeric_limits<std::uint32_t>::max());
  parser_->body_limit(limits_.body_bytes);
  parser_->on_chunk_header(on_chunk_);
  chunks_ = 0;
  head_bytes_ = 0;
  begun_ = false;
  head_taken_ = false;
  folded_ = false;
  request_ = {};
  offered_request_id_.clear();
}

RequestReader::Progress RequestReader::read(std::string_view input, std::size_t& taken) {
  taken = 0;
  if (!begun_) {
    taken = empty_line_bytes(input);
    const std::string_view rest = input.substr(taken);
    begun_ = !rest.empty() && rest != "\r";  // of the latter, what follows decides: an empty line, or no HTTP
    if (!begun_) {
      return Progress::kNeedsMore;
    }
  }
  // A head without a body is a whole request: what follows it is the next one's, and the parser must not see it.
  while (taken < input.size() && !(head_taken_ && parser_->is_done())) {
    parser_->eager(head_taken_);
    const std::string_view rest = head_taken_ ? input.substr(taken) : input.substr(taken, limits_.header_bytes - head_bytes_);
    error_code error;
    const std::size_t used = parser_->put(boost::asio::const_buffer(rest.data(), rest.size()), error);
    taken += used;
    if (!head_taken_) {
      head_bytes_ += used;
      folded_ = folded_ || has_folded_line(rest.substr(0, used));
    }
    if (error == http::error::need_more) {
      break;
    }
    if (error) {
      return refuse(error);
    }
    if (!head_taken_ && parser_->is_header_done()) {
      return take_head();
    }
    if (parser_->is_done()) {
      return Progress::kComplete;
    }
    if (used == 0) {
      break;
    }
  }
  if (head_taken_ && parser_->is_done()) {
    return Progress::kComplete;
  }
  if (!head_taken_ && head_bytes_ + (input.size() - taken) >= limits_.header_bytes) {
    return refuse({.status = 431,
                   .code = "header_too_large",
                   .message = fmt::format("the request's header is larger than {} bytes", limits_.header_bytes),
                   .reason = "too_large"});
  }
  if (head_taken_ && input.size() - taken > limits_.header_bytes) {
    return refuse({.status = 431, .code = "header_too_large", .message = "a chunk's extension or the trailer is too large", .reason = "too_large"});
  }
  return Progress::kNeedsMore;
}

RequestReader::Progress RequestReader::take_head() {
  note_head();
  if (folded_) {
    return refuse(malformed("a header's line goes on in the next one: write it in one"));
  }
  const auto& message = parser_->get();
  if (auto flaw = flaw_of(message.base())) {
    return refuse(std::move(*flaw));
  }
  head_taken_ = true;
  return Progress::kHead;
}

void RequestReader::note_head() {
  const auto& message = parser_->get();
  const std::string_view target = origin_form(to_view(message.target()));
  const std::size_t mark = target.find('?');
  // Copies: a trailer may come under the same names, and must not count.
  request_ = {.method = std::string(to_view(message.method_string())),
              .path = std::string(target.substr(0, mark)),
              .query = mark == std::string_view::npos ? "" : std::string(target.substr(mark + 1)),
              .content_type = text_of(message, http::field::content_type),
              .body = {},
              .host = text_of(message, http::field::host),
              .authorization = text_of(message, http::field::authorization),
              .accept_encoding = text_of(message, http::field::accept_encoding),
              .origin = text_of(message, http::field::origin),
              .requested_headers = text_of(message, http::field::access_control_request_headers)};
  expects_continue_ = http_1_1() && message.count(http::field::expect) > 0;
  offered_request_id_ = std::string(to_view(message["x-request-id"]));
}

RequestReader::Progress RequestReader::refuse(RequestRefusal refusal) {
  refusal_ = std::move(refusal);
  return Progress::kRefused;
}

RequestReader::Progress RequestReader::refuse(error_code error) {
  if (error == http::error::body_limit) {
    if (!head_taken_) {
      note_head();  // it is whole: its Content-Length is too large
    }
    if (chunks_ > limits_.chunks) {
      return refuse({.status = 413,
                     .code = "too_many_chunks",
                     .message = fmt::format("the request's body has more than {} chunks", limits_.chunks),
                     .reason = "too_large"});
    }
    return refuse({.status = 413,
                   .code = "body_too_large",
                   .message = fmt::format("the request's body is larger than {} bytes", limits_.body_bytes),
                   .reason = "too_large"});
  }
  return refuse(malformed(fmt::format("this is not an HTTP/1 request: {}", error.message())));
}

HttpRequest RequestReader::take_request() {
  request_.body = std::move(parser_->get().body());
  return std::move(request_);
}

std::optional<std::uint64_t> RequestReader::body_bytes() const {
  const auto length = parser_->content_length();
  return length ? std::optional<std::uint64_t>(*length) : std::nullopt;
}

}  // namespace lockstep::daemon
