// GenerationService: answers requests for generated text, in any format, with an engine.
#pragma once

#include <cstddef>
#include <memory>

#include "daemon/api/api_format.hpp"
#include "daemon/http/error_body.hpp"
#include "daemon/http/exchange.hpp"
#include "lockstep/scheduler/engine.hpp"

namespace boost::asio {
class io_context;
}

namespace lockstep::daemon {

struct GenerationOptions {
  ApiContext context;
  /// A body up to this size is read and tokenized on the Asio thread, in about a millisecond; a longer one on a worker thread, so that probes never wait for
  /// it.
  std::size_t inline_body_bytes = 4096;
};

/// From an exchange to the engine and back. Each choice of each prompt is one request of the engine; all of them are accepted or none.
/// Ownership  borrows the io_context and what the context names, and the engine from `open_gate` to `detach_engine`; owns the worker thread.
/// Threads    the Asio thread; `sink()` is the step thread's.
class GenerationService {
 public:
  [[nodiscard]] static std::unique_ptr<GenerationService> create(boost::asio::io_context& io, GenerationOptions options);
  virtual ~GenerationService() = default;
  GenerationService(const GenerationService&) = delete;
  GenerationService& operator=(const GenerationService&) = delete;

  /// Answers, now or when the engine is done.
  virtual void handle(std::shared_ptr<Exchange> exchange, const ApiFormat& format) = 0;
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
  GenerationService() = default;
};

}  // namespace lockstep::daemon
