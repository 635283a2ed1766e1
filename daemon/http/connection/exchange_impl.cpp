#include "daemon/http/connection/exchange_impl.hpp"

namespace lockstep::daemon {

Connection::ExchangeImpl::ExchangeImpl(Connection& connection, HttpRequest request, std::shared_ptr<void> body_place, std::string request_id,
                                       std::string_view route, bool http_1_1)
    : connection_(&connection),
      request_(std::move(request)),
      body_place_(std::move(body_place)),
      request_id_(std::move(request_id)),
      route_(route),
      http_1_1_(http_1_1) {}

void Connection::ExchangeImpl::respond(HttpResponse response) {
  if (connection_ == nullptr) {
    return;
  }
  status_ = response.status;
  const HeadOptions head{.status = response.status,
                         .content_type = response.content_type,
                         .framing = BodyFraming::kLength,
                         .body_bytes = response.body.size(),
                         .keep_alive = connection_->keep_alive_,
                         .request_id = request_id_};
  connection_->queue(make_response_head(head, connection_->state_->options.headers, response.headers));
  if (request_.method != "HEAD") {
    connection_->queue(response.body);
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
  connection_->queue(make_response_head(options, connection_->state_->options.headers, head.headers));
}

bool Connection::ExchangeImpl::write(std::string_view piece) {
  if (connection_ == nullptr) {
    return false;
  }
  if (connection_->outgoing_.size() + piece.size() > connection_->state_->options.limits.queued_bytes) {
    connection_->state_->reject("slow_reader");
    abandoned_ = nullptr;  // the caller learns it from the returned value
    connection_->close();
    return false;
  }
  connection_->queue(http_1_1_ ? make_chunk(piece) : std::string(piece));
  return true;
}

void Connection::ExchangeImpl::finish() {
  if (connection_ == nullptr) {
    return;
  }
  if (http_1_1_) {
    connection_->queue(kLastChunk);
  }
  complete();
}

void Connection::ExchangeImpl::complete() {
  Connection* connection = std::exchange(connection_, nullptr);
  if (HttpObserver* observer = connection->state_->options.observer) {
    observer->on_response(route_, request_.method, status_, std::chrono::steady_clock::now() - started_);
  }
  abandoned_ = nullptr;
  connection->end_exchange();
}

std::function<void()> Connection::ExchangeImpl::detach() {
  if (connection_ != nullptr) {
    if (HttpObserver* observer = connection_->state_->options.observer) {
      // 499 is nginx's word for a client that left before its answer.
      observer->on_response(route_, request_.method, 499, std::chrono::steady_clock::now() - started_);
    }
  }
  connection_ = nullptr;
  return std::exchange(abandoned_, nullptr);
}

}  // namespace lockstep::daemon
