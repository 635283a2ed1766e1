#include "daemon/http/connection/connection.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include <boost/asio/any_io_executor.hpp>
#include <fmt/format.h>

#include "daemon/http/connection/exchange_impl.hpp"
#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {
namespace {

// A close with unread input makes the kernel send a reset, which may overtake our answer, or meet a client that sends all of its request before it reads: so
// read on, but not for ever. The bytes are those of a body far above every limit here.
constexpr std::size_t kLingerBytes = std::size_t{64} << 20;
constexpr auto kLingerPause = std::chrono::seconds(2);  // without a byte
constexpr auto kLingerTime = std::chrono::seconds(30);

constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
constexpr std::string_view kStreamPing = ": ping\n\n";

TimePoint now() {
  return std::chrono::steady_clock::now();
}

}  // namespace

Connection::Connection(Client client, std::shared_ptr<ServerState> state)
    : wire_(std::move(client.socket), std::move(client.tls)), remote_(std::move(client.remote)), state_(std::move(state)), reader_(state_->options.limits) {
  state_->connections.insert(this);
  state_->count_connections();
}

Connection::~Connection() {
  state_->connections.erase(this);
  state_->count_connections();
}

void Connection::start() {
  next_request();
}

void Connection::refuse() {
  reject({.status = 503, .code = "too_many_connections", .message = "this server holds as many connections as it may; try again later", .reason = "overload"});
}

void Connection::next_request() {
  phase_ = Phase::kIdle;
  idle_since_ = now();
  deadline_ = idle_since_ + (wire_.is_securing() ? state_->options.limits.read_timeout : state_->options.limits.idle_timeout);
  if (!wire_.input().empty()) {
    begin_request(false);
  } else {
    wire_.read(shared_from_this());
  }
}

void Connection::begin_request(bool ended) {
  phase_ = Phase::kReading;
  deadline_ = now() + state_->options.limits.read_timeout;
  reader_.begin();
  continue_request(ended);
}

void Connection::continue_request(bool ended) {
  for (;;) {
    std::size_t taken = 0;
    const RequestReader::Progress progress = reader_.read(wire_.input(), taken);
    wire_.consume(taken);
    switch (progress) {
      case RequestReader::Progress::kNeedsMore:
        if (ended) {
          close();
          return;
        }
        if (!reader_.has_begun()) {  // an empty line after the last request's body begins none
          phase_ = Phase::kIdle;
          deadline_ = idle_since_ + state_->options.limits.idle_timeout;
        }
        wire_.read(shared_from_this());
        return;
      case RequestReader::Progress::kRefused:
        reject(reader_.refusal());
        return;
      case RequestReader::Progress::kHead:
        if (!accept_head()) {
          return;
        }
        break;
      case RequestReader::Progress::kComplete:
        begin_exchange(reader_.take_request());
        dispatch();
        return;
    }
    if (!reader_.body_follows()) {
      begin_exchange(reader_.take_request());
      dispatch();
      return;
    }
  }
}

bool Connection::accept_head() {
  keep_alive_ = reader_.keep_alive();
  if (!state_->options.host_names.accepts(reader_.head().host)) {
    reject({.status = 403,
            .code = "host_not_allowed",
            .message = "the Host header names a server that this one is not known to be; --allowed-host adds names",
            .reason = "foreign_host"});
    return false;
  }
  match_ = state_->router.match(reader_.head());
  const HttpLimits& limits = state_->options.limits;
  const bool short_body = reader_.body_bytes().value_or(limits.large_body_bytes + 1) <= limits.large_body_bytes;
  if (match_.answer && reader_.body_follows() && (!short_body || reader_.expects_continue())) {
    // Answered before the body has come, which nobody wants to read. Where the next request begins is then not known.
    keep_alive_ = false;
    begin_exchange(reader_.head());
    dispatch();
    return false;
  }
  if (!take_body_place()) {
    reject({.status = 503, .code = "overloaded", .message = "too many large requests are being read; try again later", .reason = "overload"});
    return false;
  }
  if (reader_.body_follows() && reader_.expects_continue()) {
    queue(kContinue);
  }
  return true;
}

bool Connection::take_body_place() {
  const HttpLimits& limits = state_->options.limits;
  const auto length = reader_.body_bytes();
  const bool large = reader_.body_follows() && (!length || *length > limits.large_body_bytes);
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

void Connection::reject(const RequestRefusal& refusal) {
  state_->reject(refusal.reason);
  // What follows in the stream cannot be told from the rest of this request.
  keep_alive_ = false;
  HttpResponse response = error_response(
      {.status = refusal.status, .message = refusal.message, .code = std::string(refusal.code), .retry_after_seconds = refusal.status == 503 ? 1 : 0});
  state_->cors.add_headers(reader_.head(), response.headers);
  const std::string request_id = take_request_id();
  const HeadOptions head{
      .status = refusal.status, .content_type = response.content_type, .body_bytes = response.body.size(), .keep_alive = false, .request_id = request_id};
  const std::string bytes = make_response_head(head, state_->options.headers, response.headers) + response.body;
  const HttpRequest& known = reader_.head();  // nothing, where the head was not whole
  const bool has_head = !known.method.empty();
  state_->report({.route = has_head ? state_->router.match(known).label : kNoRoute,
                  .method = has_head ? std::string_view(known.method) : "none",
                  .status = refusal.status,
                  .bytes = bytes.size(),
                  .remote = remote_,
                  .request_id = request_id});
  body_place_.reset();
  phase_ = Phase::kFlushing;
  deadline_ = TimePoint::max();
  queue(bytes);
}

std::string Connection::take_request_id() {
  const std::string& offered = reader_.offered_request_id();
  return is_harmless_request_id(offered) ? offered : fmt::format("{:016x}-{:x}", state_->request_salt, ++state_->request_serial);
}

void Connection::begin_exchange(HttpRequest request) {
  phase_ = Phase::kAnswering;
  deadline_ = TimePoint::max();
  exchange_ = std::make_shared<ExchangeImpl>(*this, std::move(request), std::move(body_place_), take_request_id(), match_.label, reader_.http_1_1());
  state_->count_exchange(+1);
}

void Connection::dispatch() {
  const std::shared_ptr<Connection> self = shared_from_this();  // a handler may close this connection
  if (match_.answer) {
    exchange_->respond(std::move(*match_.answer));
  } else {
    match_.route->handler(exchange_);
  }
  if (phase_ == Phase::kAnswering) {
    if (input_ended_) {
      after_input();
    } else {
      wire_.read(self);
    }
  }
}

void Connection::after_input() {
  if (!wire_.may_outlive_input()) {
    close();
    return;
  }
  keep_alive_ = keep_alive_ && !wire_.input().empty();
  wire_.watch(shared_from_this());
  // A client that left looks the same until something is sent: its system answers that with a reset. An interim answer may come at any time (RFC 9110, 15.2),
  // and of all of them 100 is the one that every client skips; HTTP/1.0 has none, so there the answer itself finds out.
  if (exchange_->streaming()) {
    static_cast<void>(exchange_->write(kStreamPing));
  } else if (reader_.http_1_1()) {
    queue(kContinue);
  }
}

void Connection::on_input(bool ended) {
  input_ended_ = input_ended_ || ended;
  switch (phase_) {
    case Phase::kIdle:
      if (!wire_.input().empty()) {
        begin_request(ended);
      } else if (ended) {
        close();
      } else {  // TLS has shaken hands
        deadline_ = idle_since_ + (wire_.is_securing() ? state_->options.limits.read_timeout : state_->options.limits.idle_timeout);
        wire_.read(shared_from_this());
      }
      break;
    case Phase::kReading:
      continue_request(ended);
      break;
    case Phase::kAnswering:
      if (ended) {
        after_input();
      } else {
        wire_.read(shared_from_this());
      }
      break;
    case Phase::kFlushing:
      break;
    case Phase::kLingering:
      lingered_bytes_ += wire_.input().size();
      wire_.consume(wire_.input().size());
      if (ended || lingered_bytes_ > kLingerBytes) {
        close();
      } else {
        deadline_ = std::min(linger_until_, now() + kLingerPause);
        wire_.read(shared_from_this());
      }
      break;
    case Phase::kClosed:
      break;
  }
}

void Connection::queue(std::string_view bytes) {
  if (phase_ == Phase::kClosed) {
    return;
  }
  wire_.queue(bytes);
  if (!flush_wanted_) {
    flush_wanted_ = true;
    state_->flush_later(shared_from_this(), wire_.executor());
  }
}

void Connection::flush() {
  flush_wanted_ = false;
  if (phase_ == Phase::kClosed) {
    return;
  }
  wire_.flush(shared_from_this());
  if (phase_ == Phase::kFlushing && !has_output()) {
    after_flush();  // an earlier send took this along
  }
}

void Connection::on_flushed() {
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
  answer_place_.reset();
  if (keep_alive_ && !(input_ended_ && wire_.input().empty())) {
    next_request();
  } else {
    linger();
  }
}

void Connection::linger() {
  phase_ = Phase::kLingering;
  linger_until_ = now() + kLingerTime;
  deadline_ = now() + kLingerPause;
  wire_.end_output();
  wire_.consume(wire_.input().size());
  wire_.read(shared_from_this());
}

void Connection::close() {
  if (phase_ == Phase::kClosed) {
    return;
  }
  phase_ = Phase::kClosed;
  wire_.close();
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

void Connection::time_out_exchange() {
  state_->reject("timeout");
  const std::shared_ptr<ExchangeImpl> exchange = exchange_;  // goes with its answer
  exchange->time_out();
}

void Connection::sweep(TimePoint at) {
  const HttpLimits& limits = state_->options.limits;
  if (wire_.write_pending() && at - wire_.last_write() > limits.write_timeout) {
    state_->reject("slow_reader");
    close();
    return;
  }
  if (exchange_ && limits.request_timeout > Duration::zero() && at - exchange_->started() > limits.request_timeout) {
    time_out_exchange();
    return;
  }
  if (exchange_ && exchange_->streaming() && !wire_.has_output() && at - wire_.last_write() > limits.stream_ping) {
    static_cast<void>(exchange_->write(kStreamPing));  // a false answer has closed the connection, which is all that can be done
    return;
  }
  if (at < deadline_) {
    return;
  }
  if (phase_ == Phase::kReading && !wire_.write_pending()) {
    reject({.status = 408, .code = "request_timeout", .message = "the request was not complete in time", .reason = "timeout"});
  } else {
    close();
  }
}

}  // namespace lockstep::daemon
