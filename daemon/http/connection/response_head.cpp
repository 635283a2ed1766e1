#include "daemon/http/connection/response_head.hpp"

#include <algorithm>
#include <ctime>
#include <iterator>

#include <boost/beast/http/status.hpp>
#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

void append_headers(std::string& head, std::span<const HttpHeader> headers) {
  for (const HttpHeader& header : headers) {
    const bool printable = std::ranges::all_of(header.value, [](char c) { return c >= ' ' && c != '\x7f'; });
    if (printable) {
      fmt::format_to(std::back_inserter(head), "{}: {}\r\n", header.name, header.value);
    }
  }
}

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[40];
  const std::size_t length = std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return {text, length};
}

}  // namespace

std::string make_response_head(const HeadOptions& options, std::span<const HttpHeader> headers, std::span<const HttpHeader> more_headers) {
  const auto reason = boost::beast::http::obsolete_reason(boost::beast::http::int_to_status(static_cast<unsigned>(options.status)));
  std::string head = fmt::format("HTTP/1.1 {} {}\r\nDate: {}\r\nServer: lockstep\r\nx-request-id: {}\r\n", options.status,
                                 std::string_view(reason.data(), reason.size()), http_date(), options.request_id);
  if (!options.content_type.empty()) {
    fmt::format_to(std::back_inserter(head), "Content-Type: {}\r\n", options.content_type);
  }
  append_headers(head, headers);
  append_headers(head, more_headers);
  if (options.framing == BodyFraming::kLength) {
    fmt::format_to(std::back_inserter(head), "Content-Length: {}\r\n", options.body_bytes);
  } else if (options.framing == BodyFraming::kChunked) {
    head += "Transfer-Encoding: chunked\r\n";
  }
  head += options.keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return head;
}

std::string chunk_size_line(std::size_t bytes) {
  return fmt::format("{:x}\r\n", bytes);
}

bool is_harmless_request_id(std::string_view text) {
  constexpr std::size_t kLengthMax = 64;
  return !text.empty() && text.size() <= kLengthMax && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

}  // namespace lockstep::daemon
