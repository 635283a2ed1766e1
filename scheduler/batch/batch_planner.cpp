#include "scheduler/batch/batch_planner.hpp"

#include <algorithm>

namespace lockstep::scheduler {

namespace {

/// What is left of the prompts is spread over about so many steps, ever smaller chunks: prompts of thousands of tokens still take the whole budget at first.
constexpr std::int64_t kPromptSpread = 8;

bool is_decoding(const Sequence& sequence) {
  return sequence.planned >= sequence.prompt_tokens;
}

}  // namespace

BatchPlanner::BatchPlanner(const BatchLimits& limits, KvCache& cache) : limits_(limits), cache_(cache) {
  running_.reserve(static_cast<std::size_t>(limits.sequences_max));
  removed_.reserve(2 * static_cast<std::size_t>(limits.sequences_max));  // of two batches; more only when many waiting ones are cancelled at once
}

void BatchPlanner::add(std::unique_ptr<Sequence> sequence) {
  waiting_.push_back(std::move(sequence));
}

void BatchPlanner::admit(TimePoint now) {
  while (!waiting_.empty() && running_count() < limits_.sequences_max) {
    Sequence& next = *waiting_.front();
    const std::int32_t blocks = KvCache::blocks_for(std::int64_t{next.prompt_tokens} + next.request.max_tokens);
    // The first one that does not fit holds up those behind it: else a long request could wait for ever.
    if (!cache_.reserve(blocks, next.blocks)) {
      return;
    }
    next.admitted = now;
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

void BatchPlanner::append_rows(Sequence& sequence, std::int32_t rows, StepBatch& batch) {
  const auto entry_index = static_cast<std::int32_t>(batch.entries.size());
  const Pooling pooling = sequence.request.pooling;
  const bool is_last = rows == sequence.pending();
  const bool samples = is_last && sequence.request.max_tokens > 0;
  const bool scores = sequence.request.scores_prompt && sequence.planned < sequence.prompt_tokens;
  const bool pools = pooling == Pooling::kMean || (is_last && pooling == Pooling::kLast);
  const bool is_late = sequence.planned + rows > static_cast<std::int32_t>(sequence.tokens.size());
  batch.entries.push_back(
      {.sequence = &sequence, .first_row = batch.rows(), .rows = rows, .samples = samples, .pools = pools, .scores = scores, .is_late = is_late});
  for (std::int32_t i = 0; i < rows; ++i) {
    const std::int32_t position = sequence.planned + i;
    batch.token_ids.push_back(is_late ? 0 : sequence.tokens[static_cast<std::size_t>(position)]);
    batch.positions.push_back(position);
    batch.sequences.push_back(entry_index);
  }
  const std::size_t table = batch.block_tables.size();
  batch.block_tables.resize(table + static_cast<std::size_t>(batch.blocks_per_table), 0);
  std::ranges::copy(sequence.blocks, batch.block_tables.begin() + static_cast<std::ptrdiff_t>(table));
  if (samples && !scores) {
    batch.sample_rows.push_back(batch.rows() - 1);
  }
  if (sequence.planned < sequence.prompt_tokens) {
    batch.prefill_tokens += rows;
    ++sequence.prefill_chunks;
  }
  sequence.planned += rows;
  ++sequence.batches;
  sequence.tokens_due += samples ? 1 : 0;
}

void BatchPlanner::fill_late_tokens(StepBatch& batch) {
  for (const StepBatch::Entry& entry : batch.entries) {
    if (entry.is_late) {
      batch.token_ids[static_cast<std::size_t>(entry.first_row)] = entry.sequence->tokens.back();
    }
  }
}

std::int32_t BatchPlanner::prompt_budget(const PromptsBesideStreams& beside, const StepBatch& batch) const {
  const std::int32_t free = limits_.tokens_max - batch.rows();
  if (batch.rows() == 0 && !beside.streams_elsewhere) {
    return free;
  }
  std::int64_t left = 0;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    left += is_decoding(*sequence) ? 0 : sequence->pending();
  }
  return static_cast<std::int32_t>(std::min<std::int64_t>(free, std::max<std::int64_t>(left / kPromptSpread, beside.tokens)));
}

void BatchPlanner::plan(TimePoint now, const PromptsBesideStreams& beside, StepBatch& batch) {
  batch.entries.clear();
  batch.token_ids.clear();
  batch.positions.clear();
  batch.sequences.clear();
  batch.block_tables.clear();
  batch.sample_rows.clear();
  batch.blocks_per_table = limits_.blocks_per_table;
  batch.prefill_tokens = 0;
  batch.waiting = 0;
  admit(now);
  batch.waiting = waiting_count();
  // Next tokens before prompt chunks: a long prompt must not stop the running streams.
  for (const bool decoding : {true, false}) {
    std::int32_t budget = decoding ? limits_.tokens_max : prompt_budget(beside, batch);
    for (const std::unique_ptr<Sequence>& sequence : running_) {
      const std::int32_t pending = sequence->pending();
      if (pending == 0 || is_decoding(*sequence) != decoding) {
        continue;
      }
      const std::int32_t rows = std::min(budget, pending);
      if (rows > 0) {
        append_rows(*sequence, rows, batch);
        budget -= rows;
      } else {
        ++batch.waiting;
      }
    }
  }
}

Sequence* BatchPlanner::remove(RequestId id) {
  const auto has_id = [id](const std::unique_ptr<Sequence>& sequence) { return sequence->request.id == id; };
  if (const auto running = std::ranges::find_if(running_, has_id); running != running_.end()) {
    removed_.push_back(std::move(*running));
    running_.erase(running);
  } else if (const auto waiting = std::ranges::find_if(waiting_, has_id); waiting != waiting_.end()) {
    removed_.push_back(std::move(*waiting));
    waiting_.erase(waiting);
  } else {
    return nullptr;
  }
  removed_.back()->ended = true;
  return removed_.back().get();
}

void BatchPlanner::free_removed() {
  std::erase_if(removed_, [this](const std::unique_ptr<Sequence>& sequence) {
    if (sequence->batches > 0) {
      return false;
    }
    cache_.release(sequence->blocks);
    return true;
  });
}

Sequence* BatchPlanner::remove_any() {
  if (!running_.empty()) {
    return remove(running_.front()->request.id);
  }
  return waiting_.empty() ? nullptr : remove(waiting_.front()->request.id);
}

}  // namespace lockstep::scheduler
