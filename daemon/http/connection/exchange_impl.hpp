// Connection::ExchangeImpl: the Exchange of a Connection. Private to this folder.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "daemon/http/connection/connection.hpp"
#include "daemon/http/connection/response_head.hpp"

namespace lockstep::daemon {

class Connection::ExchangeImpl final : public Exchange, public std::enable_shared_from_this<ExchangeImpl> {
 public:
  /// `route` is as in the router's table.
  ExchangeImpl(Connection& connection, HttpRequest request, std::shared_ptr<void> body_place, std::string request_id, std::string_view route, bool http_1_1);

  [[nodiscard]] const HttpRequest& request() const override { return request_; }
  [[nodiscard]] const std::string& request_id() const override { return request_id_; }
  [[nodiscard]] TakenBody take_body() override { return {std::exchange(request_.body, std::string()), std::move(body_place_)}; }
  void respond(HttpResponse response) override;
  void begin_stream(const HttpResponse& head) override;
  [[nodiscard]] bool write(std::string_view piece) override;
  void finish() override;
  void on_abandoned(std::function<void()> callback) override { abandoned_ = std::move(callback); }

  [[nodiscard]] bool streaming() const { return streaming_; }
  [[nodiscard]] TimePoint started() const { return started_; }
  /// Tells client and handler that the answer has taken too long, and ends the exchange.
  void time_out();
  /// The connection lets go; returns what to call, at most once.
  [[nodiscard]] std::function<void()> detach();

 private:
  void send(HttpResponse response);
  void queue(std::string_view bytes);
  void complete();
  void report(int status) const;

  Connection* connection_;  ///< null once the exchange is over
  HttpRequest request_;
  std::shared_ptr<void> body_place_;  ///< shared with nobody; its deleter counts
  std::string request_id_;
  std::string_view route_;
  std::function<void()> abandoned_;
  TimePoint started_ = std::chrono::steady_clock::now();
  std::size_t sent_bytes_ = 0;
  int status_ = 0;
  bool http_1_1_;
  bool streaming_ = false;
  bool compressing_ = false;  ///< on another thread: the answer is on its way
};

}  // namespace lockstep::daemon
