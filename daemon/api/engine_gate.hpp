// EngineGated: what the services that answer by an engine have in common, their gate.
#pragma once

#include <optional>
#include <utility>

#include "daemon/api/error_answers.hpp"
#include "daemon/api/json_content_type.hpp"
#include "daemon/http/error_body.hpp"
#include "daemon/http/exchange.hpp"
#include "lockstep/scheduler/engine.hpp"

namespace lockstep::daemon {

/// The gate of a `Service` (GenerationService, EmbeddingService): closed while the model is loaded, open while the engine takes requests, closed for good.
/// Ownership  borrows the engine from `open_gate` to `detach_engine`.      Threads  the Asio thread.
template <typename Service>
class EngineGated : public Service {
 public:
  void open_gate(scheduler::Engine& engine) final {
    engine_ = &engine;
    gate_error_.reset();
  }
  void close_gate(ApiError error) final { gate_error_ = std::move(error); }
  void detach_engine() final { engine_ = nullptr; }

 protected:
  /// Answers an exchange that goes no further: the gate is closed, or its body is no JSON.
  [[nodiscard]] bool refuse(Exchange& exchange) const {
    if (gate_error_) {
      exchange.respond(error_response(*gate_error_));
      return true;
    }
    if (!is_json_content_type(exchange.request().content_type)) {
      exchange.respond(error_response(wrong_content_type()));
      return true;
    }
    return false;
  }

  /// What requests are answered with; none: the gate is open.
  std::optional<ApiError> gate_error_ =
      ApiError{.status = 503, .message = "the model is still being loaded; try again later", .code = "loading", .retry_after_seconds = 1};
  scheduler::Engine* engine_ = nullptr;  ///< null before `open_gate` and after `detach_engine`
};

}  // namespace lockstep::daemon
