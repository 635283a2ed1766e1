#include "daemon/api/tokenize/tokenize_service.hpp"

#include <optional>
#include <utility>

#include "daemon/api/error_answers.hpp"
#include "daemon/api/json_content_type.hpp"
#include "daemon/api/request/body_reader.hpp"
#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {
namespace {

using Answer = HttpResponse (*)(std::string_view body, const TokenizeContext& context);

class PooledTokenizeService final : public TokenizeService {
 public:
  PooledTokenizeService(boost::asio::io_context& io, TokenizeOptions options) : options_(std::move(options)), reader_(BodyReader::create(io)) {}

  void tokenize(std::shared_ptr<Exchange> exchange) override { handle(std::move(exchange), tokenize_answer); }
  void detokenize(std::shared_ptr<Exchange> exchange) override { handle(std::move(exchange), detokenize_answer); }

 private:
  void handle(std::shared_ptr<Exchange> exchange, Answer answer);

  TokenizeOptions options_;
  std::unique_ptr<BodyReader> reader_;  // last: its thread uses the options
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
  const auto abandoned = std::make_shared<bool>(false);  // shared with the exchange, which sets it: both on the Asio thread
  struct Reading {
    TakenBody body;
    HttpResponse response{};
  };
  const auto reading = std::make_shared<Reading>(Reading{.body = std::move(body)});  // by the worker thread and this one, one after the other
  const BodyRead read = reader_->read(
      [this, answer, reading] {
        reading->response = answer(reading->body.text, options_.context);
        reading->body.text = std::string();
      },
      [abandoned, exchange, reading](const std::optional<Error>& failed) {
        reading->body.place.reset();  // places are counted on the Asio thread
        if (!*abandoned) {
          exchange->respond(failed ? error_response(api_error_of(*failed)) : std::move(reading->response));
        }
      });
  exchange->on_abandoned([abandoned, read, reading] {
    *abandoned = true;
    if (read.cancel()) {
      reading->body = {};
    }
  });
}

}  // namespace

std::unique_ptr<TokenizeService> TokenizeService::create(boost::asio::io_context& io, TokenizeOptions options) {
  return std::make_unique<PooledTokenizeService>(io, std::move(options));
}

}  // namespace lockstep::daemon
