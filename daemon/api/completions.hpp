// CompletionService: answers POST /v1/completions with an engine.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "daemon/http/error_body.hpp"
#include "daemon/http/exchange.hpp"
#include "lockstep/model/tokenizer.hpp"
#include "lockstep/scheduler/engine.hpp"

namespace boost::asio {
class io_context;
}

namespace lockstep::daemon {

struct CompletionOptions {
  std::string served_name;
  /// A body up to this size is parsed and tokenized on the Asio thread, in about a millisecond; a longer one on a worker thread, so that probes never wait for
  /// it.
  std::size_t inline_body_bytes = 4096;
};

/// From an exchange to the engine and back.
/// Ownership  borrows the io_context and the tokenizer, and the engine from `open_gate` to `close_gate`; owns the worker thread.
/// Threads    the Asio thread; `sink()` is the step thread's.
class CompletionService {
 public:
  [[nodiscard]] static std::unique_ptr<CompletionService> create(boost::asio::io_context& io, const model::Tokenizer& tokenizer, CompletionOptions options);
  virtual ~CompletionService() = default;
  CompletionService(const CompletionService&) = delete;
  CompletionService& operator=(const CompletionService&) = delete;

  /// Answers, now or when the engine is done.
  virtual void handle(std::shared_ptr<Exchange> exchange) = 0;
  /// From now on requests go to `engine`.
  virtual void open_gate(scheduler::Engine& engine) = 0;
  /// From now on new requests, and those not yet given to the engine, are answered with `error`.
  virtual void close_gate(ApiError error) = 0;
  /// From now on the engine is not called: it may be destroyed. The gate is closed.
  virtual void detach_engine() = 0;
  /// Where the engine delivers.
  [[nodiscard]] virtual scheduler::OutputSink& sink() = 0;
  /// Requests not answered to the end.
  [[nodiscard]] virtual std::size_t open_count() const = 0;

 protected:
  CompletionService() = default;
};

/// The answer to a request that the engine refused.
[[nodiscard]] ApiError api_error_of(const Error& error);

}  // namespace lockstep::daemon
