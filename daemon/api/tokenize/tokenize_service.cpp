#include "daemon/api/tokenize/tokenize_service.hpp"

#include <optional>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

#include "daemon/api/json_content_type.hpp"
#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {
namespace {

using Answer = HttpResponse (*)(std::string_view body, const TokenizeContext& context);

class PooledTokenizeService final : public TokenizeService {
 public:
  PooledTokenizeService(boost::asio::io_context& io, TokenizeOptions options) : io_(io), options_(std::move(options)) {}
  ~PooledTokenizeService() override {
    if (worker_) {
      worker_->join();
    }
  }

  void tokenize(std::shared_ptr<Exchange> exchange) override { handle(std::move(exchange), tokenize_answer); }
  void detokenize(std::shared_ptr<Exchange> exchange) override { handle(std::move(exchange), detokenize_answer); }

 private:
  void handle(std::shared_ptr<Exchange> exchange, Answer answer);

  boost::asio::io_context& io_;
  TokenizeOptions options_;
  std::optional<boost::asio::thread_pool> worker_;
};

void PooledTokenizeService::handle(std::shared_ptr<Exchange> exchange, Answer answer) {
  if (!is_json_content_type(exchange->request().content_type)) {
    exchange->respond(error_response(wrong_content_type()));
    return;
  }
  TakenBody body = exchange->take_body();
  if (body.text.size() <= options_.inline_body_bytes) {
    exchange->respond(answer(body.text, options_.context));
    return;
  }
  if (!worker_) {
    worker_.emplace(1);
  }
  const auto abandoned = std::make_shared<bool>(false);  // shared with the exchange, which sets it: both on the Asio thread
  exchange->on_abandoned([abandoned] { *abandoned = true; });
  boost::asio::post(*worker_, [this, answer, abandoned, exchange = std::move(exchange), body = std::move(body)]() mutable {
    HttpResponse response = answer(body.text, options_.context);
    body.text = std::string();
    // Exchange and the body's place are let go on the Asio thread.
    boost::asio::post(io_, [abandoned, response = std::move(response), exchange = std::move(exchange), place = std::move(body.place)]() mutable {
      if (!*abandoned) {
        exchange->respond(std::move(response));
      }
    });
  });
}

}  // namespace

std::unique_ptr<TokenizeService> TokenizeService::create(boost::asio::io_context& io, TokenizeOptions options) {
  return std::make_unique<PooledTokenizeService>(io, std::move(options));
}

}  // namespace lockstep::daemon
