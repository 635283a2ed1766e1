#include "daemon/http/answer_worker.hpp"

#include <atomic>
#include <exception>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

#include "daemon/http/error_body.hpp"

namespace lockstep::daemon {
namespace {

constexpr int kRetryAfterSeconds = 1;

HttpResponse refusal(std::string message) {
  return error_response({.status = 503, .message = std::move(message), .code = "overloaded", .retry_after_seconds = kRetryAfterSeconds});
}

HttpResponse made_by(const AnswerWorker::Make& make) {
  try {
    return make();
  } catch (const std::exception&) {  // the standard library's word for "no memory": an answer can be large
    return refusal("there is no memory for this answer now; try again later, or ask for less");
  }
}

}  // namespace

struct AnswerWorker::Worker {
  boost::asio::thread_pool pool{1};
};

AnswerWorker::AnswerWorker(boost::asio::io_context& io, std::size_t open_max) : io_(io), open_max_(open_max) {}

AnswerWorker::~AnswerWorker() {
  if (worker_) {
    worker_->pool.stop();
    worker_->pool.join();
  }
}

void AnswerWorker::answer(const std::shared_ptr<Exchange>& exchange, Make make) {
  if (open_ >= open_max_) {
    exchange->respond(refusal("as many such answers as may be made at once are being made; try again later"));
    return;
  }
  ++open_;
  if (!worker_) {
    worker_ = std::make_unique<Worker>();
  }
  const auto abandoned = std::make_shared<std::atomic<bool>>(false);  // shared by the exchange, which sets it, and the worker thread
  exchange->on_abandoned([abandoned] { *abandoned = true; });
  boost::asio::post(worker_->pool, [this, exchange, make = std::move(make), abandoned]() mutable {
    HttpResponse response = *abandoned ? HttpResponse{} : made_by(make);
    // The exchange travels back: its last owner must be on the Asio thread.
    boost::asio::post(io_, [this, exchange = std::move(exchange), response = std::move(response), abandoned]() mutable {
      --open_;
      if (!*abandoned) {
        exchange->respond(std::move(response));
      }
    });
  });
}

}  // namespace lockstep::daemon
