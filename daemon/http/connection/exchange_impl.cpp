#include "daemon/http/connection/exchange_impl.hpp"

#include "daemon/http/encoding/accept_encoding.hpp"
#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {
namespace {

bool is_worth_compressing(const HttpResponse& response, std::size_t bytes_min) {
  return response.status != 204 && response.body.size() >= bytes_min &&
         (response.content_type.starts_with("application/json") || response.content_type.starts_with("text/plain"));
}

HttpResponse no_room_for_answer(const ServerState& state) {
  state.reject("overload");
  return error_response({.status = 503,
                         .message = "too many large answers wait for their clients to read them; try again later",
                         .code = "overloaded",
                         .retry_after_seconds = 1});
}

}  // namespace

Connection::ExchangeImpl::ExchangeImpl(Connection& connection, HttpRequest request, std::shared_ptr<void> body_place, std::string request_id,
                                       std::string_view route, bool http_1_1)
    : connection_(&connection),
      request_(std::move(request)),
      body_place_(std::move(body_place)),
      request_id_(std::move(request_id)),
      route_(route),
      http_1_1_(http_1_1) {}

void Connection::ExchangeImpl::respond(HttpResponse response) {
  if (connection_ == nullptr || compressing_) {
    return;
  }
  if (!is_worth_compressing(response, connection_->state_->options.limits.gzip_bytes)) {
    send(std::move(response));
    return;
  }
  response.headers.push_back({"Vary", "Accept-Encoding"});
  Compressor* compressor = connection_->state_->compressor.get();
  if (compressor == nullptr || request_.method == "HEAD" || !accepts_gzip(request_.accept_encoding)) {
    send(std::move(response));
    return;
  }
  // Text that waits for the compressor is held too, also when its client has left: so the place goes with it, not with the connection.
  std::shared_ptr<void> place;
  if (!connection_->state_->take_answer_place(response.body.size(), place)) {
    send(no_room_for_answer(*connection_->state_));
    return;
  }
  compressing_ = true;
  std::string body = std::move(response.body);
  compressor->compress(std::move(body), [self = shared_from_this(), place = std::move(place), response = std::move(response)](CompressedText text) mutable {
    place.reset();
    if (text.compressed) {
      response.headers.push_back({"Content-Encoding", "gzip"});
    }
    response.body = std::move(text.bytes);
    self->compressing_ = false;
    if (self->connection_ != nullptr) {
      const std::shared_ptr<Connection> connection = self->connection_->shared_from_this();
      self->send(std::move(response));
    }
  });
}

void Connection::ExchangeImpl::send(HttpResponse response) {
  ServerState& state = *connection_->state_;
  if (!state.take_answer_place(response.body.size(), connection_->answer_place_)) {
    response = no_room_for_answer(state);
  }
  status_ = response.status;
  state.cors.add_headers(request_, response.headers);
  const HeadOptions head{.status = response.status,
                         .content_type = response.content_type,
                         .framing = response.status == 204 ? BodyFraming::kNone : BodyFraming::kLength,
                         .body_bytes = response.body.size(),
                         .keep_alive = connection_->keep_alive_,
                         .request_id = request_id_};
  queue(make_response_head(head, state.options.headers, response.headers));
  if (request_.method != "HEAD") {
    queue(response.body);
  }
  complete();
}

void Connection::ExchangeImpl::begin_stream(const HttpResponse& head) {
  if (connection_ == nullptr) {
    return;
  }
  // An HTTP/1.0 client knows no chunks: for it the body ends with the connection.
  connection_->keep_alive_ = connection_->keep_alive_ && http_1_1_;
  status_ = head.status;
  streaming_ = true;
  const HeadOptions options{.status = head.status,
                            .content_type = head.content_type,
                            .framing = http_1_1_ ? BodyFraming::kChunked : BodyFraming::kUntilClose,
                            .keep_alive = connection_->keep_alive_,
                            .request_id = request_id_};
  ServerState& state = *connection_->state_;
  std::vector<HttpHeader> headers = head.headers;
  state.cors.add_headers(request_, headers);
  queue(make_response_head(options, state.options.headers, headers));
}

bool Connection::ExchangeImpl::write(std::string_view piece) {
  if (connection_ == nullptr) {
    return false;
  }
  // Counted without this piece: one that is larger than the limit (many choices with their echo, say) is no sign of a slow reader.
  if (connection_->wire_.queued_bytes() > connection_->state_->options.limits.queued_bytes) {
    connection_->state_->reject("slow_reader");
    abandoned_ = nullptr;  // the caller learns it from the returned value
    connection_->close();
    return false;
  }
  if (piece.empty()) {
    return true;  // an empty chunk would end the body
  }
  if (http_1_1_) {
    append_chunk(piece, [this](std::string_view bytes) { queue(bytes); });
  } else {
    queue(piece);
  }
  return true;
}

void Connection::ExchangeImpl::finish() {
  if (connection_ == nullptr) {
    return;
  }
  if (http_1_1_) {
    queue(kLastChunk);
  }
  complete();
}

void Connection::ExchangeImpl::time_out() {
  const std::function<void()> callback = std::exchange(abandoned_, nullptr);
  const ApiError error{.status = 504, .message = "the answer was not complete within the server's --request-timeout", .code = "request_timeout"};
  if (compressing_) {
    connection_->close();  // the answer is there, and cannot be waited for any longer
  } else if (!streaming_) {
    send(error_response(error));
  } else if (write(std::string("data: ") + error_body(error) + "\n\n")) {
    finish();
  }
  if (callback) {
    callback();
  }
}

void Connection::ExchangeImpl::queue(std::string_view bytes) {
  sent_bytes_ += bytes.size();
  connection_->queue(bytes);
}

void Connection::ExchangeImpl::report(int status) const {
  connection_->state_->report({.route = route_,
                               .method = request_.method,
                               .status = status,
                               .duration = std::chrono::steady_clock::now() - started_,
                               .bytes = sent_bytes_,
                               .remote = connection_->remote_,
                               .request_id = request_id_});
}

void Connection::ExchangeImpl::complete() {
  report(status_);
  Connection* connection = std::exchange(connection_, nullptr);
  abandoned_ = nullptr;
  connection->end_exchange();
}

std::function<void()> Connection::ExchangeImpl::detach() {
  if (connection_ != nullptr) {
    report(499);  // nginx's word for a client that left before its answer
  }
  connection_ = nullptr;
  return std::exchange(abandoned_, nullptr);
}

}  // namespace lockstep::daemon
