// BatchPlanner: continuous batching with chunked prefill. Decides which rows this rank computes next.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "scheduler/batch/kv_cache.hpp"
#include "scheduler/batch/sequence.hpp"

namespace lockstep::scheduler {

struct BatchLimits {
  std::int32_t sequences_max = 0;     ///< admitted at once
  std::int32_t tokens_max = 0;        ///< rows of one step
  std::int32_t blocks_per_table = 0;  ///< KV blocks of the longest sequence
};

/// What prompts share their steps with: of other members, what they had rows of in the last step.
struct PromptsBesideStreams {
  std::int64_t streams_elsewhere = 0;
  std::int64_t prompts_elsewhere = 0;
  std::int32_t tokens = 0;  ///< of prompts in a step with more streams, where few are left
};

/// The rows of one rank's step, sequence by sequence. Vectors keep their capacity from step to step.
struct StepBatch {
  struct Entry {
    Sequence* sequence = nullptr;
    std::int32_t first_row = 0;
    std::int32_t rows = 0;
    bool samples = false;  ///< its last row's logits give a token
    bool pools = false;    ///< its rows' hidden states are wanted
    bool scores = false;   ///< the logits of all its rows are wanted: they are made after the step, from the hidden states
    bool is_late = false;  ///< its row's token comes from a batch that was not computed when this one was planned
  };
  std::vector<Entry> entries;
  std::vector<std::int32_t> token_ids;     ///< [rows]
  std::vector<std::int32_t> positions;     ///< [rows]
  std::vector<std::int32_t> sequences;     ///< [rows], index into entries
  std::vector<std::int32_t> block_tables;  ///< [entries][blocks_per_table]
  std::vector<std::int32_t> sample_rows;   ///< ascending rows whose logits the step makes: of entries that sample and do not score
  std::int32_t blocks_per_table = 0;
  std::int32_t prefill_tokens = 0;
  std::int32_t waiting = 0;  ///< sequences that want rows and have none in this batch

  [[nodiscard]] std::int32_t rows() const { return static_cast<std::int32_t>(token_ids.size()); }
};

/// One batch may be planned while the one before it is not computed yet: a running sequence then counts as one that goes on, unless its due token makes
/// max_tokens. A sequence that is removed meanwhile keeps its blocks until no batch has rows of it.
/// Ownership  owns the sequences; borrows the cache.      Threads  the engine's.      Cost  linear in the admitted sequences; no allocation once warm.
class BatchPlanner {
 public:
  BatchPlanner(const BatchLimits& limits, KvCache& cache);
  /// Accepts a sequence that fits the whole cache at its longest (the engine has checked).
  void add(std::unique_ptr<Sequence> sequence);
  /// Admits what fits (first come, first served), then fills the token budget: running requests' next tokens first, then prompt chunks in order of admission.
  /// Where streams, here and on other members, which take the same steps, are at least as many as the prompts, prompts get a part of the budget only: an
  /// eighth of the prompt tokens that are left to compute, at most half of the budget, at least `beside.tokens`. So short prompts hardly hold up streams, long
  /// ones are not held up by them, and a burst of prompts does not wait for the few that came first. A batch with rows has to be computed, and told to its
  /// sequences (Sequence::complete).
  ///
  /// A sequence has blocks for its prompt from admission on, and one more whenever its text has filled the last. Where none is free, the newest one gives all
  /// of its blocks back, waits before whatever never ran, and is computed again once it fits: so the oldest one always goes on.
  void plan(TimePoint now, const PromptsBesideStreams& beside, StepBatch& batch);
  /// Reads the tokens of rows that were late, once the batch before has been sampled. A sequence that has ended gives its last one, so that the batch keeps
  /// its shape.
  static void fill_late_tokens(StepBatch& batch);
  /// Marks a sequence as ended and takes it out of what is planned; null for an unknown id, or one that was removed. Valid until `free_removed`.
  [[nodiscard]] Sequence* remove(RequestId id);
  /// Any one that is left, oldest first; null when there is none.
  [[nodiscard]] Sequence* remove_any();
  /// Frees the removed ones and their blocks, except those in batches that are not computed yet.
  void free_removed();

  [[nodiscard]] std::int32_t running_count() const { return static_cast<std::int32_t>(running_.size()); }
  [[nodiscard]] std::int32_t waiting_count() const { return static_cast<std::int32_t>(waiting_.size()); }
  /// How often a sequence gave its blocks up for an older one, since the start.
  [[nodiscard]] std::int64_t preemptions() const { return preemptions_; }

 private:
  void admit(TimePoint now);
  void add_next_tokens(StepBatch& batch);
  void add_prompt_chunks(const PromptsBesideStreams& beside, StepBatch& batch);
  /// Makes sure of a block for the next row of `running_[index]`, if need be at the cost of the newest ones. False where it has to wait, or was the newest.
  [[nodiscard]] bool make_room(std::size_t index);
  void preempt_newest();
  /// Frees the blocks of preempted ones that no batch has rows of any more.
  void free_preempted();
  /// Whether sequences that ended, are about to, or were preempted give blocks back once a batch is computed.
  [[nodiscard]] bool expects_blocks() const;
  /// Rows of prompts, at most, in a batch beside the rows that it has.
  [[nodiscard]] std::int32_t prompt_budget(const PromptsBesideStreams& beside, const StepBatch& batch) const;
  static void append_rows(Sequence& sequence, std::int32_t rows, StepBatch& batch);

  BatchLimits limits_;
  KvCache& cache_;
  std::deque<std::unique_ptr<Sequence>> waiting_;   ///< in order of arrival, the preempted ones first; all of them newer than the running ones
  std::vector<std::unique_ptr<Sequence>> running_;  ///< in order of arrival
  std::vector<std::unique_ptr<Sequence>> removed_;
  std::int64_t preemptions_ = 0;
};

}  // namespace lockstep::scheduler
