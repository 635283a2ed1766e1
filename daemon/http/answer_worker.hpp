// AnswerWorker: makes answers that take long to make, beside the Asio thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "daemon/http/exchange.hpp"

namespace boost::asio {
class io_context;
}

namespace lockstep::daemon {

/// One thread, which makes one answer at a time; a few may wait for it, and more are told to come again.
/// Ownership  borrows the io_context, which outlives it. The destructor waits for the answer that is being made, and drops the rest.
/// Threads    the Asio thread.
class AnswerWorker {
 public:
  /// `open_max`: how many answers may be in the making, the first of them and those that wait for it; at least 1.
  explicit AnswerWorker(boost::asio::io_context& io, std::size_t open_max = 4);
  ~AnswerWorker();
  AnswerWorker(const AnswerWorker&) = delete;
  AnswerWorker& operator=(const AnswerWorker&) = delete;

  /// On the worker thread; what it refers to outlives the worker. What it throws is answered with 503.
  using Make = std::function<HttpResponse()>;
  /// Answers with what `make` returns, or at once with 503 and Retry-After where too many are in the making. One whose client has left is not made.
  /// Takes the exchange's on_abandoned.
  void answer(const std::shared_ptr<Exchange>& exchange, Make make);

 private:
  struct Worker;
  boost::asio::io_context& io_;
  std::size_t open_max_;
  std::size_t open_ = 0;
  std::unique_ptr<Worker> worker_;  ///< null before the first answer
};

}  // namespace lockstep::daemon
