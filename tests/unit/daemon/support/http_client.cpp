#include "tests/unit/daemon/support/http_client.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <fmt/format.h>

namespace lockstep::daemon::testing {

HttpClient::HttpClient(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  connect(AF_INET, &address, sizeof address);
}

HttpClient::HttpClient(const std::filesystem::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.string().copy(address.sun_path, sizeof address.sun_path - 1);
  connect(AF_UNIX, &address, sizeof address);
}

void HttpClient::connect(int family, const void* address, std::size_t bytes) {
  socket_ = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{.tv_sec = 20, .tv_usec = 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (::connect(socket_, static_cast<const sockaddr*>(address), static_cast<socklen_t>(bytes)) != 0) {
    close();
  }
}

HttpClient::~HttpClient() {
  close();
}

bool HttpClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) {
      return false;
    }
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

bool HttpClient::fill() {
  char piece[16384];
  errno = 0;  // an orderly end leaves it alone, and read_end looks at it
  const ssize_t got = ::recv(socket_, piece, sizeof piece, 0);
  if (got <= 0) {
    return false;
  }
  buffer_.append(piece, static_cast<std::size_t>(got));
  return true;
}

std::string HttpClient::read_until(std::string_view mark) {
  std::size_t found = 0;
  while ((found = buffer_.find(mark)) == std::string::npos) {
    if (!fill()) {
      return {};
    }
  }
  std::string result = buffer_.substr(0, found + mark.size());
  buffer_.erase(0, result.size());
  return result;
}

bool HttpClient::read_end() {
  while (fill()) {
  }
  return errno != EAGAIN && errno != EWOULDBLOCK;
}

ClientResponse HttpClient::read_response(bool head_only) {
  ClientResponse response;
  const std::string head = read_until("\r\n\r\n");
  if (head.size() < 12) {
    return response;
  }
  response.status = std::atoi(head.c_str() + 9);
  for (std::size_t at = head.find("\r\n") + 2; at + 2 < head.size();) {
    const std::size_t end = head.find("\r\n", at);
    const std::size_t colon = head.find(": ", at);
    std::string name = head.substr(at, colon - at);
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    response.headers[name] = head.substr(colon + 2, end - colon - 2);
    at = end + 2;
  }
  if (head_only || response.status == 100) {
    return response;
  }
  if (response.headers.contains("content-length")) {
    const std::size_t length = std::stoul(response.headers["content-length"]);
    while (buffer_.size() < length && fill()) {
    }
    response.body = buffer_.substr(0, length);
    buffer_.erase(0, length);
    return response;
  }
  for (;;) {
    const std::string size_line = read_until("\r\n");
    const std::size_t size = std::strtoul(size_line.c_str(), nullptr, 16);
    const std::string chunk_end = size_line.empty() ? "" : "\r\n";
    while (!size_line.empty() && buffer_.size() < size + 2 && fill()) {
    }
    response.body += buffer_.substr(0, size);
    buffer_.erase(0, size + 2);
    if (size == 0) {
      return response;
    }
  }
}

ClientResponse HttpClient::get(std::string_view path) {
  send(fmt::format("GET {} HTTP/1.1\r\nHost: test\r\n\r\n", path));
  return read_response();
}

void HttpClient::send_post(std::string_view path, std::string_view body, std::string_view content_type) {
  send(fmt::format("POST {} HTTP/1.1\r\nHost: test\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{}", path, content_type, body.size(), body));
}

ClientResponse HttpClient::post(std::string_view path, std::string_view body, std::string_view content_type) {
  send_post(path, body, content_type);
  return read_response();
}

void HttpClient::end_sending() {
  ::shutdown(socket_, SHUT_WR);
}

void HttpClient::close() {
  if (socket_ >= 0) {
    ::close(socket_);
    socket_ = -1;
  }
}

void HttpClient::reset() {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close();
}

}  // namespace lockstep::daemon::testing
