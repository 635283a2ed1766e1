// A blocking HTTP client that can also misbehave: it sends whatever bytes a test gives it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace lockstep::daemon::testing {

struct ClientResponse {
  int status = 0;                              ///< 0: the connection ended before a whole head came
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;                            ///< chunks joined
};

class HttpClient {
 public:
  explicit HttpClient(std::uint16_t port);
  /// Of a Unix socket.
  explicit HttpClient(const std::filesystem::path& path);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// False when the server has closed the connection.
  bool send(std::string_view bytes);
  ClientResponse get(std::string_view path);
  ClientResponse post(std::string_view path, std::string_view body, std::string_view content_type = "application/json");
  void send_post(std::string_view path, std::string_view body, std::string_view content_type = "application/json");
  /// `head_only`: of HEAD, which has a length and no body.
  ClientResponse read_response(bool head_only = false);
  /// Reads until `mark` was seen; what was read up to and with it, or "" if the connection ended first.
  std::string read_until(std::string_view mark);
  /// True once the server has closed the connection.
  bool read_end();
  /// Nothing more will be sent; what comes can still be read.
  void end_sending();
  void close();
  /// Makes close() send a reset.
  void reset();

 private:
  void connect(int family, const void* address, std::size_t bytes);
  bool fill();

  int socket_ = -1;
  std::string buffer_;
};

}  // namespace lockstep::daemon::testing
