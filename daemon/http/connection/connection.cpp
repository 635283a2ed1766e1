#include "daemon/http/connection/connection.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <fmt/format.h>

#include "daemon/http/connection/exchange_impl.hpp"
#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {
namespace {

namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::size_t kReadBufferBytes = std::size_t{64} << 10;  // of header and of pipelined bytes; a body goes to its string
constexpr std::size_t kWatchBytes = 4096;
// A close with unread input makes the kernel send a reset, which may overtake our answer: so read on for a while, but not for ever.
constexpr std::size_t kLingerBytes = std::size_t{8} << 20;
constexpr auto kLingerTime = std::chrono::seconds(2);

TimePoint now() {
  return std::chrono::steady_clock::now();
}

std::string_view to_view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

/// Whether the message's length is known: Beast takes a body of another coding, or of none that it knows, for chunked or for empty, and where a proxy reads it
/// otherwise, what follows is a request of somebody else's making.
bool is_framing_known(const http::fields& fields) {
  const auto range = fields.equal_range(http::field::transfer_encoding);
  if (range.first == range.second) {
    return true;
  }
  return std::next(range.first) == range.second && boost::beast::iequals(range.first->value(), "chunked");
}

/// Path and query of a target: as it is, or after the authority of the absolute form that proxies send.
std::string_view origin_form(std::string_view target) {
  constexpr std::string_view kScheme = "http://";
  if (target.size() < kScheme.size() || !boost::beast::iequals(boost::beast::string_view(target.data(), kScheme.size()), "http://")) {
    return target;
  }
  const std::size_t end = target.find_first_of("/?", kScheme.size());
  if (end == std::string_view::npos) {
    return "/";
  }
  return target.substr(end);
}

}  // namespace

void ServerState::count_exchange(int change) {
  exchanges += static_cast<std::size_t>(change);
  if (options.observer != nullptr) {
    options.observer->on_inflight(exchanges);
  }
}

void ServerState::count_connections() const {
  if (options.observer != nullptr) {
    options.observer->on_connections(connections.size());
  }
}

void ServerState::reject(std::string_view reason) const {
  if (options.observer != nullptr) {
    options.observer->on_rejected(reason);
  }
}

Connection::Connection(boost::asio::ip::tcp::socket socket, std::shared_ptr<ServerState> state)
    : socket_(std::move(socket)), state_(std::move(state)), buffer_(kReadBufferBytes) {
  state_->connections.insert(this);
  state_->count_connections();
}

Connection::~Connection() {
  state_->connections.erase(this);
  state_->count_connections();
}

void Connection::start() {
  error_code ignored;
  socket_.set_option(boost::asio::ip::tcp::no_delay(true), ignored);  // tokens are small and must not wait for an acknowledgement
  next_request();
}

void Connection::refuse() {
  state_->reject("overload");
  keep_alive_ = false;
  reject(503, "too_many_connections", "this server holds as many connections as it may; try again later", "overload");
}

void Connection::next_request() {
  phase_ = Phase::kIdle;
  if (buffer_.size() > 0) {
    if (watching_) {
      socket_.cancel();  // nothing else is pending on the socket; on_watched goes on from here
    } else {
      read_header();
    }
    return;
  }
  deadline_ = now() + state_->options.limits.idle_timeout;
  watch_client();
}

void Connection::read_header() {
  phase_ = Phase::kReading;
  deadline_ = now() + state_->options.limits.read_timeout;
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(state_->options.limits.header_bytes));
  parser_->body_limit(state_->options.limits.body_bytes);
  http::async_read_header(socket_, buffer_, *parser_, [self = shared_from_this()](error_code error, std::size_t) { self->on_header(error); });
}

void Connection::on_header(error_code error) {
  if (phase_ != Phase::kReading) {
    return;
  }
  if (error) {
    on_read_error(error);
    return;
  }
  keep_alive_ = parser_->get().keep_alive();
  if (!is_framing_known(parser_->get())) {
    reject(501, "unsupported_transfer_encoding", "the only Transfer-Encoding that this server knows is chunked", "malformed");
    return;
  }
  if (!take_body_place()) {
    reject(503, "overloaded", "too many large requests are being read; try again later", "overload");
    return;
  }
  if (parser_->is_done()) {
    dispatch();
    return;
  }
  if (boost::beast::iequals(parser_->get()[http::field::expect], "100-continue")) {
    queue("HTTP/1.1 100 Continue\r\n\r\n");
  }
  read_body();
}

bool Connection::take_body_place() {
  const HttpLimits& limits = state_->options.limits;
  const auto length = parser_->content_length();
  const bool large = length ? *length > limits.large_body_bytes : parser_->chunked();
  if (!large) {
    return true;
  }
  if (state_->large_bodies >= limits.large_bodies) {
    return false;
  }
  ++state_->large_bodies;
  body_place_ = std::shared_ptr<void>(nullptr, [state = state_](void*) { --state->large_bodies; });
  return true;
}

void Connection::read_body() {
  http::async_read(socket_, buffer_, *parser_, [self = shared_from_this()](error_code error, std::size_t) { self->on_body(error); });
}

void Connection::on_body(error_code error) {
  if (phase_ != Phase::kReading) {
    return;
  }
  if (error) {
    on_read_error(error);
    return;
  }
  dispatch();
}

void Connection::on_read_error(error_code error) {
  const HttpLimits& limits = state_->options.limits;
  if (error == http::error::body_limit) {
    reject(413, "body_too_large", fmt::format("the request's body is larger than {} bytes", limits.body_bytes), "too_large");
  } else if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    reject(431, "header_too_large", fmt::format("the request's header is larger than {} bytes", limits.header_bytes), "too_large");
  } else if (error == http::error::end_of_stream || error == http::error::partial_message ||
             error.category() != http::make_error_code(http::error::bad_method).category()) {
    close();
  } else {
    reject(400, "malformed_http", fmt::format("this is not an HTTP/1 request: {}", error.message()), "malformed");
  }
}

void Connection::reject(int status, std::string_view code, std::string_view message, std::string_view reason) {
  state_->reject(reason);
  if (state_->options.observer != nullptr) {
    state_->options.observer->on_response(kNoRoute, "none", status, Duration::zero());
  }
  // What follows in the stream cannot be told from the rest of this request.
  keep_alive_ = false;
  HttpResponse response =
      error_response({.status = status, .message = std::string(message), .code = std::string(code), .retry_after_seconds = status == 503 ? 1 : 0});
  const HeadOptions head{
      .status = status, .content_type = response.content_type, .body_bytes = response.body.size(), .keep_alive = false, .request_id = "none"};
  phase_ = Phase::kFlushing;
  deadline_ = TimePoint::max();
  queue(make_response_head(head, state_->options.headers, response.headers) + response.body);
}

void Connection::dispatch() {
  phase_ = Phase::kAnswering;
  deadline_ = TimePoint::max();
  const auto& message = parser_->get();
  const std::string_view target = origin_form(to_view(message.target()));
  const std::size_t mark = target.find('?');
  const std::string_view offered_id = to_view(message["x-request-id"]);
  std::string request_id =
      is_harmless_request_id(offered_id) ? std::string(offered_id) : fmt::format("{:016x}-{:x}", state_->request_salt, ++state_->request_serial);
  HttpRequest request{.method = std::string(to_view(message.method_string())),
                      .path = std::string(target.substr(0, mark)),
                      .query = mark == std::string_view::npos ? "" : std::string(target.substr(mark + 1)),
                      .content_type = std::string(to_view(message[http::field::content_type])),
                      .authorization = std::string(to_view(message[http::field::authorization])),
                      .body = std::move(parser_->get().body())};
  RouteMatch match = state_->router.match(request);
  exchange_ = std::make_shared<ExchangeImpl>(*this, std::move(request), std::move(body_place_), std::move(request_id), match.label, message.version() >= 11);
  state_->count_exchange(+1);
  const std::shared_ptr<Connection> self = shared_from_this();  // a handler may close this connection
  if (match.answer) {
    exchange_->respond(std::move(*match.answer));
  } else {
    match.route->handler(exchange_);
  }
  if (phase_ == Phase::kAnswering) {
    watch_client();
  }
}

void Connection::watch_client() {
  const std::size_t room = buffer_.max_size() - buffer_.size();
  if (watching_ || room == 0) {
    return;
  }
  watching_ = true;
  socket_.async_read_some(buffer_.prepare(std::min(room, kWatchBytes)),
                          [self = shared_from_this()](error_code error, std::size_t bytes) { self->on_watched(error, bytes); });
}

void Connection::on_watched(error_code error, std::size_t bytes) {
  watching_ = false;
  buffer_.commit(bytes);
  switch (phase_) {
    case Phase::kIdle:
      if (error && error != boost::asio::error::operation_aborted) {
        close();
      } else {
        read_header();
      }
      break;
    case Phase::kAnswering:
      if (error) {
        close();
      } else {
        watch_client();
      }
      break;
    case Phase::kFlushing:
      keep_alive_ = keep_alive_ && !error;
      break;
    case Phase::kLingering:
      lingered_bytes_ += bytes;
      buffer_.consume(buffer_.size());
      if (error || lingered_bytes_ > kLingerBytes) {
        close();
      } else {
        watch_client();
      }
      break;
    case Phase::kReading:
    case Phase::kClosed:
      break;
  }
}

void Connection::queue(std::string_view bytes) {
  if (phase_ == Phase::kClosed) {
    return;
  }
  outgoing_.append(bytes);
  if (!write_pending_) {
    last_write_ = now();
    write_some();
  }
}

void Connection::write_some() {
  if (written_bytes_ == writing_.size()) {
    writing_.clear();
    written_bytes_ = 0;
    writing_.swap(outgoing_);
  }
  write_pending_ = true;
  socket_.async_write_some(boost::asio::buffer(writing_.data() + written_bytes_, writing_.size() - written_bytes_),
                           [self = shared_from_this()](error_code error, std::size_t bytes) { self->on_written(error, bytes); });
}

void Connection::on_written(error_code error, std::size_t bytes) {
  write_pending_ = false;
  if (phase_ == Phase::kClosed) {
    return;
  }
  if (error) {
    close();
    return;
  }
  written_bytes_ += bytes;
  last_write_ = now();
  if (written_bytes_ < writing_.size() || !outgoing_.empty()) {
    write_some();
    return;
  }
  if (phase_ == Phase::kFlushing) {
    after_flush();
  }
}

void Connection::end_exchange() {
  exchange_.reset();
  state_->count_exchange(-1);
  phase_ = Phase::kFlushing;
  if (!has_output()) {
    after_flush();  // a body that ends with the connection leaves nothing to write at its end
  }
}

void Connection::after_flush() {
  if (keep_alive_) {
    next_request();
  } else {
    linger();
  }
}

void Connection::linger() {
  phase_ = Phase::kLingering;
  deadline_ = now() + kLingerTime;
  error_code ignored;
  socket_.shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
  buffer_.consume(buffer_.size());
  watch_client();
}

void Connection::close() {
  if (phase_ == Phase::kClosed) {
    return;
  }
  phase_ = Phase::kClosed;
  error_code ignored;
  socket_.close(ignored);
  abandon();
}

void Connection::abandon() {
  if (!exchange_) {
    return;
  }
  const std::shared_ptr<ExchangeImpl> exchange = std::move(exchange_);
  exchange_.reset();
  state_->count_exchange(-1);
  if (const std::function<void()> callback = exchange->detach()) {
    callback();
  }
}

void Connection::sweep(TimePoint at) {
  if (write_pending_ && at - last_write_ > state_->options.limits.write_timeout) {
    state_->reject("slow_reader");
    close();
    return;
  }
  if (exchange_ && exchange_->streaming() && !write_pending_ && at - last_write_ > state_->options.limits.stream_ping) {
    static_cast<void>(exchange_->write(": ping\n\n"));  // a false answer has closed the connection, which is all that can be done
    return;
  }
  if (at < deadline_) {
    return;
  }
  if (phase_ == Phase::kReading && !write_pending_) {
    socket_.cancel();  // the pending read's handler sees another phase and leaves
    reject(408, "request_timeout", "the request was not complete in time", "timeout");
  } else {
    close();
  }
}

}  // namespace lockstep::daemon
