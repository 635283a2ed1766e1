#include "scheduler/engine/step_output.hpp"

#include <algorithm>
#include <optional>

#include "lockstep/core/check.hpp"
#include "scheduler/engine/pooling.hpp"

namespace lockstep::scheduler {

StepOutput::StepOutput(const StepOutputParts& parts, std::int32_t rows_max) : parts_(parts) {
  likeliest_.resize(static_cast<std::size_t>(rows_max) * static_cast<std::size_t>(kLogProbabilitiesMax));
}

Result<StepOutput::Counts> StepOutput::sample(const StepBatch& batch, TimePoint now) {
  Counts counts;
  std::int32_t logit_row = 0;
  for (const StepBatch::Entry& entry : batch.entries) {
    Sequence& sequence = *entry.sequence;
    sequence.complete(entry.rows, entry.samples);
    const std::int32_t my_logit_row = logit_row;
    logit_row += entry.samples && !entry.scores ? 1 : 0;
    counts.dropped_rows += sequence.ended ? entry.rows : 0;
    if (sequence.ended || entry.scores) {
      continue;
    }
    if (entry.pools) {
      pool(entry);  // may end the sequence
    } else if (entry.samples) {
      const std::optional<std::int32_t> chosen = parts_.executor->sampled_token(my_logit_row);
      const bool taken = chosen ? take_token(sequence, {.id = *chosen, .valid = *chosen != device::kNoToken}, {}, now)
                                : choose_token(entry, parts_.transformer->logits(my_logit_row), now);
      counts.generated_tokens += taken ? 1 : 0;
    }
  }
  // Only now: scores are made in the buffer of the step's own logits.
  for (const StepBatch::Entry& entry : batch.entries) {
    if (entry.scores && !entry.sequence->ended) {
      LOCKSTEP_ASSIGN_OR_RETURN(const bool generated, score(entry, now));
      counts.generated_tokens += generated ? 1 : 0;
    }
  }
  return counts;
}

std::span<model::TokenLogProbability> StepOutput::likeliest_of(const Sequence& sequence, std::int32_t row) {
  return std::span(likeliest_)
      .subspan(static_cast<std::size_t>(row) * static_cast<std::size_t>(kLogProbabilitiesMax),
               static_cast<std::size_t>(std::max(sequence.request.sampling.log_probabilities, 0)));
}

bool StepOutput::choose_token(const StepBatch::Entry& entry, std::span<const float> logits, TimePoint now) {
  Sequence& sequence = *entry.sequence;
  const std::span<model::TokenLogProbability> likeliest = likeliest_of(sequence, entry.first_row + entry.rows - 1);
  return take_token(sequence, sampler_.sample(logits, sampler_input(sequence), likeliest), likeliest, now);
}

bool StepOutput::take_token(Sequence& sequence, const model::SampledToken& token, std::span<const model::TokenLogProbability> likeliest, TimePoint now) {
  if (!token.valid) {
    end_request(sequence.request.id, FinishReason::kError, &no_distribution_);
    return false;
  }
  append_token(sequence, token, likeliest, now);  // may end the sequence
  return true;
}

Result<bool> StepOutput::score(const StepBatch::Entry& entry, TimePoint now) {
  Sequence& sequence = *entry.sequence;
  const RequestId id = sequence.request.id;
  const std::int32_t first_scored = sequence.computed - entry.rows + 1;  // position of the token that follows the first row
  const std::int32_t scored = std::min(entry.rows, sequence.prompt_tokens - first_scored);
  const std::int32_t wanted = scored + (entry.samples ? 1 : 0);
  // What came back before a preemption does not come twice.
  const std::int32_t first_row = std::clamp(sequence.scored + 1 - first_scored, 0, scored);
  std::int32_t made = 0;
  for (std::int32_t row = first_row; row < wanted; row += made) {
    LOCKSTEP_ASSIGN_OR_RETURN(made, parts_.executor->make_logits(entry.first_row + row, wanted - row));
    for (std::int32_t i = row; i < std::min(row + made, scored); ++i) {
      const std::int32_t token = sequence.tokens[static_cast<std::size_t>(first_scored + i)];
      const std::span<model::TokenLogProbability> likeliest = likeliest_of(sequence, entry.first_row + i);
      const std::optional<float> log_probability = sampler_.log_probability(parts_.transformer->logits(i - row), token, likeliest);
      if (!log_probability) {
        end_request(id, FinishReason::kError, &no_distribution_);
        return false;
      }
      events_.push_back({.request = id, .token = token, .of_prompt = true, .log_probability = *log_probability, .likeliest = likeliest});
      ++sequence.scored;
    }
  }
  if (entry.samples) {
    return choose_token(entry, parts_.transformer->logits(made - 1), now);
  }
  if (sequence.request.max_tokens == 0 && sequence.computed == sequence.prompt_tokens) {
    end_request(id, FinishReason::kLength, nullptr);
  }
  return false;
}

void StepOutput::pool(const StepBatch::Entry& entry) {
  Sequence& sequence = *entry.sequence;
  const bool ends = sequence.computed == sequence.prompt_tokens;
  const std::int32_t first = sequence.request.pooling == Pooling::kLast ? entry.rows - 1 : 0;
  for (std::int32_t row = first; row < entry.rows; ++row) {
    add_row(parts_.executor->hidden_row(entry.first_row + row), sequence.pooled);
  }
  if (!ends) {
    return;
  }
  const RequestId id = sequence.request.id;
  if (!scale_to_length_one(sequence.pooled)) {
    end_request(id, FinishReason::kError, &no_direction_);
    return;
  }
  const Sequence* const ended = parts_.planner->remove(id);
  LOCKSTEP_CHECK(ended != nullptr, "request {} is in the batch but not among the planner's", id);
  events_.push_back({.request = id, .finish = FinishReason::kStop, .embedding = ended->pooled});  // it lives until `deliver` frees it
  finish(*ended, FinishReason::kStop);
}

void StepOutput::append_token(Sequence& sequence, const model::SampledToken& token, std::span<const model::TokenLogProbability> likeliest, TimePoint now) {
  sequence.tokens.push_back(token.id);
  if (sequence.has_counts) {
    sequence.counts.add_output(token.id);
  }
  events_.push_back({.request = sequence.request.id, .token = token.id, .log_probability = token.log_probability, .likeliest = likeliest});
  if (parts_.observer != nullptr) {
    if (sequence.first_token == TimePoint{}) {
      parts_.observer->on_first_token(now - sequence.arrival);
    } else {
      parts_.observer->on_inter_token(now - sequence.last_token);
    }
  }
  if (sequence.first_token == TimePoint{}) {
    sequence.first_token = now;
  }
  sequence.last_token = now;
  const GenerationRequest& request = sequence.request;
  const bool stops = std::ranges::find(sequence.end_token_ids, token.id) != sequence.end_token_ids.end();
  if (!stops && sequence.generated() < request.max_tokens) {
    return;
  }
  const FinishReason reason = stops ? FinishReason::kStop : FinishReason::kLength;
  events_.back().finish = reason;
  const Sequence* const ended = parts_.planner->remove(request.id);
  LOCKSTEP_CHECK(ended != nullptr, "request {} is in the batch but not among the planner's", request.id);
  finish(*ended, reason);
}

void StepOutput::end_request(RequestId id, FinishReason reason, const Error* error) {
  if (const Sequence* const sequence = parts_.planner->remove(id); sequence != nullptr) {
    events_.push_back({.request = id, .finish = reason, .error = error});
    finish(*sequence, reason);
  }
}

void StepOutput::finish(const Sequence& sequence, FinishReason reason) {
  parts_.inbox->request_ended(sequence.request.id);
  if (parts_.observer == nullptr) {
    return;
  }
  const TimePoint now = parts_.clock->now();
  const bool was_admitted = sequence.admitted != TimePoint{};
  parts_.observer->on_request_finished({.reason = reason,
                                        .prompt_tokens = sequence.prompt_tokens,
                                        .generated_tokens = sequence.generated(),
                                        .prefill_chunks = sequence.prefill_chunks,
                                        .queue_time = (was_admitted ? sequence.admitted : now) - sequence.arrival,
                                        .time_to_first_token = sequence.first_token == TimePoint{} ? Duration{} : sequence.first_token - sequence.arrival,
                                        .total_time = now - sequence.arrival});
}

void StepOutput::end_all(FinishReason reason, const Error* error) {
  while (const Sequence* const sequence = parts_.planner->remove_any()) {
    events_.push_back({.request = sequence->request.id, .finish = reason, .error = error});
    finish(*sequence, reason);
  }
  deliver();
}

void StepOutput::deliver() {
  if (!events_.empty()) {
    parts_.sink->deliver(events_);
    events_.clear();
  }
  parts_.planner->free_removed();
}

}  // namespace lockstep::scheduler
