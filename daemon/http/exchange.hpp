// HttpRequest, HttpResponse and Exchange: what a route's handler sees of HTTP. No Beast or Asio here.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lockstep::daemon {

struct HttpHeader {
  std::string name;
  std::string value;
};

/// One request, read whole. `path` and `query` are the two sides of the target's '?', not percent-decoded.
struct HttpRequest {
  std::string method;
  std::string path;
  std::string query;
  std::string content_type;
  std::string body;
  // Headers that the front door alone looks at. None of them may be logged.
  std::string host;
  std::string authorization;
  std::string accept_encoding;
  std::string origin;             ///< "": not from a page in a browser, or from the server's own
  std::string requested_headers;  ///< Access-Control-Request-Headers, of a browser's preflight
};

/// A body apart from its exchange.
struct TakenBody {
  std::string text;
  std::shared_ptr<void> place;  ///< its place among the few large ones: to be held as long as the text, and let go on the Asio thread
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<HttpHeader> headers{};
};

/// One request and its answer, which may come later: `respond` once, or `begin_stream`, any number of `write`, `finish`.
/// What is written in one turn of the event loop goes out in one piece.
/// Ownership  shared by the connection (to tell that the client left) and the handler (to answer); each may let go first.
/// Threads    the Asio thread.
class Exchange {
 public:
  virtual ~Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  [[nodiscard]] virtual const HttpRequest& request() const = 0;
  /// The client's x-request-id where it is harmless, else one of ours; sent back in the answer.
  [[nodiscard]] virtual const std::string& request_id() const = 0;
  /// Moves the request's body out, for a thread that may read it while this exchange goes on, or after its client has left.
  [[nodiscard]] virtual TakenBody take_body() = 0;
  virtual void respond(HttpResponse response) = 0;
  /// Sends the head; `head.body` is ignored.
  virtual void begin_stream(const HttpResponse& head) = 0;
  /// Queues a piece of the body. False: the client is gone, or reads so slowly that its queue is full; it has been cut off, and the exchange is over.
  [[nodiscard]] virtual bool write(std::string_view piece) = 0;
  virtual void finish() = 0;
  /// `callback` runs once if the client leaves before the answer is complete, or HttpLimits::request_timeout is over, which the server then answers itself.
  /// It is not run when `write` returned false.
  virtual void on_abandoned(std::function<void()> callback) = 0;

 protected:
  Exchange() = default;
};

}  // namespace lockstep::daemon
