#include "scheduler/batch/batch_planner.hpp"

#include <algorithm>

namespace lockstep::scheduler {

BatchPlanner::BatchPlanner(const BatchLimits& limits, KvCache& cache) : limits_(limits), cache_(cache) {
  running_.reserve(static_cast<std::size_t>(limits.sequences_max));
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
  const bool samples = is_last && pooling == Pooling::kNone;
  const bool pools = pooling == Pooling::kMean || (is_last && pooling == Pooling::kLast);
  batch.entries.push_back({.sequence = &sequence, .first_row = batch.rows(), .rows = rows, .samples = samples, .pools = pools});
  for (std::int32_t i = 0; i < rows; ++i) {
    const std::int32_t position = sequence.computed + i;
    batch.token_ids.push_back(sequence.tokens[static_cast<std::size_t>(position)]);
    batch.positions.push_back(position);
    batch.sequences.push_back(entry_index);
  }
  const std::size_t table = batch.block_tables.size();
  batch.block_tables.resize(table + static_cast<std::size_t>(batch.blocks_per_table), 0);
  std::ranges::copy(sequence.blocks, batch.block_tables.begin() + static_cast<std::ptrdiff_t>(table));
  if (samples) {
    batch.sample_rows.push_back(batch.rows() - 1);
  }
  if (sequence.computed < sequence.prompt_tokens) {
    batch.prefill_tokens += rows;
    ++sequence.prefill_chunks;
  }
}

void BatchPlanner::plan(TimePoint now, StepBatch& batch) {
  batch.entries.clear();
  batch.token_ids.clear();
  batch.positions.clear();
  batch.sequences.clear();
  batch.block_tables.clear();
  batch.sample_rows.clear();
  batch.blocks_per_table = limits_.blocks_per_table;
  batch.prefill_tokens = 0;
  admit(now);
  // Next tokens before prompt chunks: a long prompt must not stop the running streams.
  for (const bool decoding : {true, false}) {
    for (const std::unique_ptr<Sequence>& sequence : running_) {
      const std::int32_t budget = limits_.tokens_max - batch.rows();
      if (budget > 0 && (sequence->computed >= sequence->prompt_tokens) == decoding) {
        append_rows(*sequence, std::min(budget, sequence->pending()), batch);
      }
    }
  }
}

std::unique_ptr<Sequence> BatchPlanner::remove(RequestId id) {
  const auto has_id = [id](const std::unique_ptr<Sequence>& sequence) { return sequence->request.id == id; };
  std::unique_ptr<Sequence> found;
  if (const auto running = std::ranges::find_if(running_, has_id); running != running_.end()) {
    found = std::move(*running);
    running_.erase(running);
    cache_.release(found->blocks);
  } else if (const auto waiting = std::ranges::find_if(waiting_, has_id); waiting != waiting_.end()) {
    found = std::move(*waiting);
    waiting_.erase(waiting);
  }
  return found;
}

std::unique_ptr<Sequence> BatchPlanner::remove_any() {
  if (!running_.empty()) {
    return remove(running_.front()->request.id);
  }
  return waiting_.empty() ? nullptr : remove(waiting_.front()->request.id);
}

}  // namespace lockstep::scheduler
