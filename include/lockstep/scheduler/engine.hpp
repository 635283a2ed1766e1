// Engine: the loop of one rank. Plans, agrees, runs the step program, samples, delivers.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/expert_exchange.hpp"
#include "lockstep/comm/group.hpp"
#include "lockstep/comm/step_progress.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/core/result.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/forward_context.hpp"
#include "lockstep/model/model_config.hpp"
#include "lockstep/model/weights.hpp"
#include "lockstep/scheduler/agreement_mode.hpp"
#include "lockstep/scheduler/request.hpp"
#include "lockstep/scheduler/step_observer.hpp"

namespace lockstep::scheduler {

struct EngineOptions {
  std::int32_t max_num_seqs = 64;              ///< requests with rows in one step
  std::int32_t max_num_batched_tokens = 1024;  ///< rows in one step
  std::int32_t max_pending = 1024;             ///< requests accepted and not finished; more are refused
  std::int64_t kv_cache_bytes = std::int64_t{256} << 20;
  std::int32_t max_model_len = 0;                       ///< tokens; 0 is the model's context
  std::int32_t micro_batches = 1;                       ///< 1, 2 or 4, proposed for steps with rows enough
  bool micro_batches_auto = false;                      ///< then as many of these as measured steps of that shape were fastest with; micro_batches is 4
  std::int32_t gather_rows = comm::kGatherRowsDefault;  ///< see comm::ExpertExchangeOptions
  comm::CombineMode combine = comm::CombineMode::kPerExpert;
  AgreementMode agreement = AgreementMode::kSync;
  GraphMode graphs = GraphMode::kNone;  ///< the most that steps of decodes may be launched as; a device without graphs has none
  std::int32_t graph_tokens_max = 256;  ///< rows of the largest step that is captured, on the rank that has most
  Duration stall_timeout = std::chrono::seconds(10);
  Duration keep_alive_interval = std::chrono::seconds(5);
  std::uint64_t options_hash = 0;  ///< of what else must be equal on all ranks (version, build)
};

/// Whether `options` can work for `config` in a group of `ranks`: asked before any port opens, and again by Engine::create.
/// Errors  kInvalidArgument naming option, value and what is expected.
[[nodiscard]] Status check_engine_options(const EngineOptions& options, const model::ModelConfig& config, int ranks);
/// Bytes of KV cache that `options` make an engine allocate: no more than --max-num-seqs requests of the longest length can use.
[[nodiscard]] std::int64_t kv_cache_bytes_used(const EngineOptions& options, const model::ModelConfig& config);

/// What an engine is made of. Borrowed parts outlive it.
struct EngineParts {
  const model::ModelConfig* config = nullptr;
  model::WeightSource* weights = nullptr;  ///< used until `load_weights` returns
  device::Device* device = nullptr;
  comm::Communicator* communicator = nullptr;
  comm::GroupView view;
  comm::StepProgress* progress = nullptr;
  comm::WakeSender* wake_sender = nullptr;  ///< null at world 1
  const Watch* watch = nullptr;             ///< the failure detector; null where there is none
  OutputSink* sink = nullptr;
  StepObserver* observer = nullptr;
  ForwardTimingTracker* timing_tracker = nullptr;  ///< gets the time of each forward pass by padded rows of this rank; null: nobody else wants them
  const Clock* clock = &SteadyClock::instance();
};

/// Ownership  owns requests, KV cache, weights and streams.
/// Threads    create, load_weights, warm_up, run: one thread (the step thread), in this order. submit, cancel, complete, request_drain, on_wake and the
/// queries: any, never blocking on a step. Failure    `run` returns the first error after it ended every open request through the sink (kRankLost); the process
/// then leaves the group.
class Engine : public comm::WakeReceiver {
 public:
  /// Checks that parts and options fit each other and computes the configuration hash. Reads no weights.
  [[nodiscard]] static Result<std::unique_ptr<Engine>> create(const EngineOptions& options, EngineParts parts);
  /// Reads and packs this rank's weights, allocates the KV cache.      Cost  the start's longest phase; polls `watch` between tensors.
  [[nodiscard]] virtual Status load_weights() = 0;
  /// Computes once in every shape that keeps something, so that no step allocates. Requests are accepted from then on.
  [[nodiscard]] virtual Status warm_up() = 0;
  /// Both, for those who do not tell them apart.
  [[nodiscard]] Status load() {
    LOCKSTEP_RETURN_IF_ERROR(load_weights());
    return warm_up();
  }
  /// Takes steps until the group has agreed to stop (success) or something failed. The first thing that it does is the handshake.
  [[nodiscard]] virtual Status run() = 0;

  /// Accepts all of `requests` or none; they are moved from when it accepts them.
  /// Errors  kInvalidArgument: empty prompt, prompt + max_tokens beyond the context or beyond the whole KV cache, a token id outside the vocabulary, a sampling
  /// value out of range, an id that is open already, more requests than max_pending;
  ///         kResourceExhausted: max_pending; kCancelled: draining or stopped.
  [[nodiscard]] virtual Status submit_all(std::span<GenerationRequest> requests) = 0;
  [[nodiscard]] Status submit(GenerationRequest request) { return submit_all({&request, 1}); }
  /// Ends a request at the next step (kCancelled is delivered); an unknown or finished id is ignored.
  virtual void cancel(RequestId id) = 0;
  /// The same for one whose caller has all that it wants, a stop string for example: kStop is delivered, without a token.
  virtual void complete(RequestId id) = 0;
  /// Asks the group to drain: no admission anywhere, accepted requests finish, all leave after one agreed step.
  virtual void request_drain() = 0;
  /// Asks the group to stop after the next step: open requests end with kCancelled.
  virtual void request_stop() = 0;

  [[nodiscard]] virtual bool draining() const = 0;
  [[nodiscard]] virtual bool running() const = 0;  ///< handshake done, `run` not returned
  [[nodiscard]] virtual std::int32_t open_requests() const = 0;
  [[nodiscard]] virtual std::int32_t max_model_len() const = 0;
  /// Tokens that prompt and output of one request may have: those of the context or of the whole KV cache, whichever are fewer. 0 before `load` is done.
  [[nodiscard]] virtual std::int32_t max_request_tokens() const = 0;
  [[nodiscard]] virtual std::uint64_t config_hash() const = 0;
  /// What the ranks have agreed to launch as graphs, for the log; empty: no graphs here, or none wanted. Read once `running`.
  [[nodiscard]] virtual const std::string& graph_report() const = 0;
  /// What the hash is made of, for the log: two ranks that refuse each other can be compared.
  [[nodiscard]] virtual const std::string& config_identity() const = 0;

 protected:
  Engine() = default;
};

}  // namespace lockstep::scheduler
