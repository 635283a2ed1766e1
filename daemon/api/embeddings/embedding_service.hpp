// EmbeddingService: answers POST /v1/embeddings with an engine.
#pragma once

#include <cstddef>
#include <memory>

#include "daemon/api/embeddings/embedding_request.hpp"
#include "daemon/http/error_body.hpp"
#include "daemon/http/exchange.hpp"
#include "lockstep/scheduler/engine.hpp"

namespace boost::asio {
class io_context;
}

namespace lockstep::daemon {

struct EmbeddingOptions {
  EmbeddingContext context;
  scheduler::Pooling pooling = scheduler::Pooling::kLast;
  std::size_t inline_body_bytes = 4096;  ///< as GenerationOptions
};

/// Each text is a request of the engine that is prefilled and generates nothing, so that its collectives stay in agreed steps. The texts of requests that
/// come together are admitted together, by an AsyncMicrobatcher; those of one request all or none.
/// Ownership  borrows the io_context and what the context names, and the engine from `open_gate` to `detach_engine`; owns a worker thread.
/// Threads    the Asio thread; `sink()` is the step thread's.
class EmbeddingService {
 public:
  [[nodiscard]] static std::unique_ptr<EmbeddingService> create(boost::asio::io_context& io, EmbeddingOptions options);
  virtual ~EmbeddingService() = default;
  EmbeddingService(const EmbeddingService&) = delete;
  EmbeddingService& operator=(const EmbeddingService&) = delete;

  /// Answers, now or when the engine is done.
  virtual void handle(std::shared_ptr<Exchange> exchange) = 0;
  // As GenerationService's.
  virtual void open_gate(scheduler::Engine& engine) = 0;
  virtual void close_gate(ApiError error) = 0;
  virtual void detach_engine() = 0;
  /// Where the engine delivers the events of requests with kEmbeddingIdBit.
  [[nodiscard]] virtual scheduler::OutputSink& sink() = 0;
  /// Requests not answered to the end.
  [[nodiscard]] virtual std::size_t open_count() const = 0;

 protected:
  EmbeddingService() = default;
};

}  // namespace lockstep::daemon
