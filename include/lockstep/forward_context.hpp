// ForwardContext: what the layers of a forward pass know about the step they are in. Seed module 004.
#pragma once

#include <any>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lockstep/core/deadline.hpp"

namespace lockstep {

class ForwardTimingTracker;

/// The shape of a step: key of the caches of prepared steps (CUDA graphs; prepared primitives on hosts).      Threads  a value.
struct BatchDescriptor {
  std::int32_t num_tokens = 0;             ///< tokens of this rank, padded
  std::optional<std::int32_t> num_reqs{};  ///< requests; none: any number
  bool uniform = false;                    ///< every request has the same number of tokens (pure decode)
  bool has_lora = false;

  /// The same descriptor for any number of requests and any mix.
  [[nodiscard]] BatchDescriptor relaxed() const { return {num_tokens, std::nullopt, false, has_lora}; }
  [[nodiscard]] BatchDescriptor with_num_tokens(std::int32_t tokens) const { return {tokens, num_reqs, uniform, has_lora}; }
  /// "tokens=8,reqs=any,uniform=0,lora=0": stable, for logs and labels.
  [[nodiscard]] std::string key() const;
  /// The same on every build and machine.
  [[nodiscard]] std::uint64_t hash_key() const;

  friend auto operator<=>(const BatchDescriptor&, const BatchDescriptor&) = default;
  friend bool operator==(const BatchDescriptor&, const BatchDescriptor&) = default;
};

/// How many tokens every rank has in this step: the result of the agreement, and the capacities of the expert exchange.      Threads  a value.
class DPMetadata {
 public:
  DPMetadata() = default;
  /// Errors  throws std::invalid_argument: world_size < 1, rank outside it, a negative count, a vector of another length, or one whose entry for `rank` differs
  ///         from `num_tokens`. Without `num_tokens_across_dp`, `num_tokens` is the group's total, split evenly with the remainder to the first ranks.
  static DPMetadata make(int world_size, int rank, std::int32_t num_tokens, std::optional<std::vector<std::int32_t>> num_tokens_across_dp = std::nullopt);
  /// One rank with n tokens.
  static DPMetadata single(std::int32_t num_tokens);
  /// Takes over the agreed counts without allocating once its capacity has grown to the world size: the step path's `make`.
  void assign(int rank, std::span<const std::int32_t> tokens_per_rank);

  [[nodiscard]] int world_size() const { return static_cast<int>(tokens_per_rank_.size()); }
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] std::span<const std::int32_t> tokens_per_rank() const { return tokens_per_rank_; }  ///< [world_size], tokens, by rank; 0 is idle
  [[nodiscard]] std::int32_t get_local_tokens() const;
  [[nodiscard]] std::int32_t get_total_tokens() const;
  [[nodiscard]] std::int32_t max_tokens() const;
  /// [world_size + 1], tokens: where each rank's tokens begin in the concatenation over ranks; the last is the total.
  [[nodiscard]] std::vector<std::int32_t> offsets() const;
  /// The counts of micro-batch `index` when each rank cuts its tokens into runs of `micro_batch_tokens`: zero where a rank has no such rows.
  [[nodiscard]] DPMetadata chunk(std::int32_t index, std::int32_t micro_batch_tokens) const;
  /// `chunk` into an existing object, without allocation.
  void chunk_into(std::int32_t index, std::int32_t micro_batch_tokens, DPMetadata& out) const;

  friend bool operator==(const DPMetadata&, const DPMetadata&) = default;

 private:
  int rank_ = 0;
  std::vector<std::int32_t> tokens_per_rank_;
};

/// What attention layers need to know of the batch; each engine derives its own and its layers cast to it.
class AttentionMetadata {
 public:
  virtual ~AttentionMetadata() = default;

 protected:
  AttentionMetadata() = default;
  AttentionMetadata(const AttentionMetadata&) = default;
  AttentionMetadata& operator=(const AttentionMetadata&) = default;
};

/// Layer name → metadata; one object may serve all layers. Entries are borrowed from the engine for the step.
using AttentionMetadataByLayer = std::map<std::string, const AttentionMetadata*, std::less<>>;

/// NONE, PIECEWISE, FULL: ordered, so that the group's mode is the minimum of its members'.
enum class GraphMode : std::int32_t { kNone = 0, kPiecewise = 1, kFull = 2 };

/// The context of one forward pass, set by the engine and read by the layers.
/// Ownership  attention metadata and the tracker are borrowed; they outlive the pass.      Threads  set once, then read by the threads that run the pass.
struct ForwardContext {
  const AttentionMetadataByLayer* attn_metadata = nullptr;
  int virtual_engine = 0;
  std::optional<std::int32_t> num_tokens{};  ///< explicit token count; wins over the descriptor
  std::optional<BatchDescriptor> batch_descriptor{};
  const DPMetadata* dp_metadata = nullptr;
  GraphMode cudagraph_runtime_mode = GraphMode::kNone;
  const std::map<std::string, std::any, std::less<>>* additional_kwargs = nullptr;
  TimePoint start_time{};
  ForwardTimingTracker* timing_tracker = nullptr;

  /// Errors  throws std::out_of_range naming the layer and the known ones.      Cost  one map look-up; layers keep the reference for the stage.
  [[nodiscard]] const AttentionMetadata& get_attn_metadata(std::string_view layer) const;
  /// num_tokens → descriptor → local tokens of dp_metadata → 0.
  [[nodiscard]] std::int32_t get_num_tokens() const;
  [[nodiscard]] bool is_cudagraph_enabled() const { return cudagraph_runtime_mode != GraphMode::kNone; }
  [[nodiscard]] Duration elapsed_time() const;
};

/// The calling thread's context.      Errors  throws std::logic_error when none is set.
[[nodiscard]] const ForwardContext& get_forward_context();
[[nodiscard]] bool is_forward_context_available() noexcept;
/// The raw slot of the calling thread: sets `context` (may be null) and returns what was there. `set_forward_context` is what users want.
const ForwardContext* _set_forward_context(const ForwardContext* context) noexcept;  // NOLINT: the seed's name

/// The seed's factory: fills start_time with now.
struct ForwardContextOptions {
  const AttentionMetadataByLayer* attn_metadata = nullptr;
  int virtual_engine = 0;
  std::optional<std::int32_t> num_tokens{};
  std::optional<BatchDescriptor> batch_descriptor{};
  const DPMetadata* dp_metadata = nullptr;
  GraphMode cudagraph_runtime_mode = GraphMode::kNone;
  const std::map<std::string, std::any, std::less<>>* additional_kwargs = nullptr;
  ForwardTimingTracker* timing_tracker = nullptr;
};
[[nodiscard]] ForwardContext create_forward_context(const ForwardContextOptions& options);

/// Makes `context` current on this thread until the end of the scope, then restores what was there: scopes nest.
/// Ownership  borrows `context` until the scope has ended and what was enqueued in it has run.      Threads  one: no coroutine may suspend in the scope.
class [[nodiscard]] set_forward_context {  // NOLINT: the seed's name
 public:
  explicit set_forward_context(const ForwardContext& context) noexcept : previous_(_set_forward_context(&context)) {}
  explicit set_forward_context(const ForwardContext&&) = delete;  ///< a temporary would be gone before the scope's first use of it
  ~set_forward_context() { _set_forward_context(previous_); }
  set_forward_context(const set_forward_context&) = delete;
  set_forward_context& operator=(const set_forward_context&) = delete;

 private:
  const ForwardContext* previous_;
};

/// Time of forward passes per batch size; feeds the metrics and the overlap decision.
/// Memory   bounded and allocated at construction: per batch size a ring of the last kSamplesPerSize samples; sizes first seen after kMaxSizes others share the
///          last record, listed under the largest of them.
/// Threads  safe; `record` is uncontended ≤ 100 ns.
class ForwardTimingTracker {
 public:
  static constexpr std::size_t kSamplesPerSize = 256;
  static constexpr std::size_t kMaxSizes = 64;
  struct Stats {
    std::int32_t batch_size = 0;
    std::uint64_t count = 0;
    double mean_ms = 0, p50_ms = 0, p99_ms = 0, min_ms = 0, max_ms = 0;
  };

  explicit ForwardTimingTracker(Duration log_interval = std::chrono::seconds(60), const Clock& clock = SteadyClock::instance());
  ~ForwardTimingTracker();
  ForwardTimingTracker(const ForwardTimingTracker&) = delete;
  ForwardTimingTracker& operator=(const ForwardTimingTracker&) = delete;

  /// Ignores a duration that is not finite.
  void record(std::int32_t batch_size, double duration_ms);
  /// By ascending batch size. Percentiles are over the ring, interpolated between neighbours; the rest is over all samples since `clear`.
  [[nodiscard]] std::vector<Stats> get_stats() const;
  /// Those of one batch size that has a record of its own; none where it was never recorded.      Cost  no allocation.
  [[nodiscard]] std::optional<Stats> get_stats(std::int32_t batch_size) const;
  /// True once per log interval.
  [[nodiscard]] bool should_log();
  void clear();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The current context's tracker, or the process-wide one where none is set.
[[nodiscard]] ForwardTimingTracker& get_timing_tracker();

}  // namespace lockstep

template <>
struct std::hash<lockstep::BatchDescriptor> {
  std::size_t operator()(const lockstep::BatchDescriptor& descriptor) const noexcept { return descriptor.hash_key(); }
};
