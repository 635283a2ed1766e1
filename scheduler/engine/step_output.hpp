// StepOutput: what a step gives its requests: tokens, embeddings, their end.
#pragma once

#include <span>
#include <vector>

#include "lockstep/core/deadline.hpp"
#include "lockstep/model/sampler.hpp"
#include "lockstep/model/transformer.hpp"
#include "lockstep/scheduler/request.hpp"
#include "lockstep/scheduler/step_observer.hpp"
#include "scheduler/batch/batch_planner.hpp"
#include "scheduler/engine/engine_inbox.hpp"
#include "scheduler/step/step_executor.hpp"

namespace lockstep::scheduler {

/// What is borrowed by the output; all of it outlives it.
struct StepOutputParts {
  BatchPlanner* planner = nullptr;
  EngineInbox* inbox = nullptr;
  OutputSink* sink = nullptr;
  StepObserver* observer = nullptr;
  const Clock* clock = nullptr;
  model::Transformer* transformer = nullptr;
  StepExecutor* executor = nullptr;
};

/// Every request ends here, once. Events are kept until `deliver`.      Threads  the engine's.      Cost  no allocation once warm.
class StepOutput {
 public:
  /// `rows_max`: rows of one step.
  StepOutput(const StepOutputParts& parts, std::int32_t rows_max);
  StepOutput(const StepOutput&) = delete;
  StepOutput& operator=(const StepOutput&) = delete;

  struct Counts {
    std::int32_t generated_tokens = 0;
    std::int32_t dropped_rows = 0;  ///< of sequences that have ended since the batch was planned
  };
  /// Samples from the logits of the step that the executor has run over `batch`, pools and scores by its hidden states; ends what ends.
  [[nodiscard]] Result<Counts> sample(const StepBatch& batch, TimePoint now);
  /// Ends a request, wherever it is; one that has ended, or is unknown, is ignored. `error` lives until `deliver`.
  void end_request(RequestId id, FinishReason reason, const Error* error);
  /// Ends whatever the planner has, and delivers.
  void end_all(FinishReason reason, const Error* error);
  /// Hands the events to the sink, and frees what has ended and is in no batch any more.
  void deliver();

 private:
  /// Samples the entry's token from `logits`. False where there is none.
  bool choose_token(const StepBatch::Entry& entry, std::span<const float> logits, TimePoint now);
  /// False where it is no valid one, which ends the request.
  bool take_token(Sequence& sequence, const model::SampledToken& token, std::span<const model::TokenLogProbability> likeliest, TimePoint now);
  /// Delivers the log probabilities of the prompt's tokens that follow the entry's rows, and samples where the entry does. True where that gave a token.
  [[nodiscard]] Result<bool> score(const StepBatch::Entry& entry, TimePoint now);
  /// Where what is likeliest after a row of the batch is kept: as many as the request asks for.
  [[nodiscard]] std::span<model::TokenLogProbability> likeliest_of(const Sequence& sequence, std::int32_t row);
  /// Adds the entry's hidden states to its sequence, and ends it after the last.
  void pool(const StepBatch::Entry& entry);
  void append_token(Sequence& sequence, const model::SampledToken& token, std::span<const model::TokenLogProbability> likeliest, TimePoint now);
  void finish(const Sequence& sequence, FinishReason reason);

  const StepOutputParts parts_;
  model::Sampler sampler_;
  std::vector<TokenEvent> events_;
  std::vector<model::TokenLogProbability> likeliest_;  ///< [rows][kLogProbabilitiesMax], what this step's events point at
  const Error no_distribution_{ErrorCode::kInternal,
                               "the model's logits are not numbers, or every token is forbidden: its weights are damaged or overflow; check the model's files"};
  const Error no_direction_{ErrorCode::kInternal,
                            "the model's hidden states are zero or not numbers: its weights are damaged or overflow; check the model's files"};
};

}  // namespace lockstep::scheduler
