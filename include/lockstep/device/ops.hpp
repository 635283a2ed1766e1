// Ops: the tensor operations that the model's stages are written over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lockstep/core/bfloat16.hpp"
#include "lockstep/core/result.hpp"
#include "lockstep/device/kv_cache.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::device {

class TokenSampler;

/// Element type of a tensor in a model file.
enum class DataType { kBFloat16, kFloat16, kFloat32 };
[[nodiscard]] constexpr std::size_t data_type_bytes(DataType type) {
  return type == DataType::kFloat32 ? 4 : 2;
}

/// A row-major [rows, columns] matrix as the model file has it; borrowed for the call. Not necessarily aligned.
struct MatrixSource {
  DataType type = DataType::kBFloat16;
  const std::byte* data = nullptr;
  std::int64_t rows = 0;     ///< output features
  std::int64_t columns = 0;  ///< input features
};

/// Weights of one matrix product, packed in the device's own layout. Opaque; later quantized forms are other implementations.
/// Ownership  the holder's; freed with the last copy of the handle (the stages of a layer, and ops in flight, share it).      Threads  immutable.
class PackedWeight {
 public:
  virtual ~PackedWeight() = default;
  [[nodiscard]] virtual std::int64_t output_features() const = 0;
  [[nodiscard]] virtual std::int64_t input_features() const = 0;
  [[nodiscard]] virtual std::int64_t bytes() const = 0;

 protected:
  PackedWeight() = default;
};
using WeightHandle = std::shared_ptr<const PackedWeight>;

/// How tokens choose experts. Softmax top-k now; sigmoid, bias, groups and shared experts are later kinds.
struct Router {
  enum class Kind { kSoftmaxTopK };
  Kind kind = Kind::kSoftmaxTopK;
  int expert_count = 0;
  int top_k = 0;
  bool normalize_top_k = true;  ///< the chosen weights are divided by their sum
};

/// Rows [offsets[e], offsets[e + 1]) belong to weights[e].
struct GroupedRows {
  std::span<const std::int32_t> offsets;  ///< [weights.size() + 1], rows, ascending from 0
  std::span<const WeightHandle> weights;  ///< [groups], all of one shape
};

class LocalExperts;  // lockstep/device/local_experts.hpp
struct LocalExpertsOptions;

/// Geometry of one attention layer.
struct AttentionShape {
  int query_heads = 0;
  int kv_heads = 0;   ///< divides query_heads
  int head_size = 0;  ///< even; need not be hidden / query_heads
  float rms_norm_epsilon = 1e-6F;
};

/// Tensor operations of one device, called from inside Stream::enqueue'd tasks: a host backend computes at once, a device backend launches on `stream`.
/// Rounding  matrix products read bfloat16 and accumulate in float32; everything between is float32. Each output row depends on its own input row only, bit
///           for bit, whatever the number of rows ("One answer"): so batching, chunking and splitting cannot change a token. On a device that is not the host
///           this holds for `matmul` where DeviceOptions::batch_invariant asked for it.
/// Shapes    row-major and dense; `rows` may be 0. All buffers come from Device::allocate; spans lie in the host's memory and are read during the call.
/// Threads   one at a time per Ops object.
/// Errors    none: shapes are checked when the model is built; a wrong one here is our bug (LOCKSTEP_CHECK).
/// Cost      no allocation after `prepare` for the same shapes.
class Ops {
 public:
  virtual ~Ops() = default;
  Ops(const Ops&) = delete;
  Ops& operator=(const Ops&) = delete;

  /// Packs a weight once, for `matmul`. Errors  kResourceExhausted, kUnsupported.
  [[nodiscard]] virtual Result<WeightHandle> pack_weight(const MatrixSource& source) = 0;
  /// Builds whatever `matmul` by this weight needs (JIT code, scratch) for up to `rows_max` rows, ahead of time.
  [[nodiscard]] virtual Status prepare(const WeightHandle& weight, std::int64_t rows_max) = 0;

  /// Copies `bytes` from the host, which leaves them as they are until the stream has done it.      from  of Device::allocate_host, to  of Device::allocate.
  virtual void upload(Stream& stream, const void* from, std::size_t bytes, void* to) = 0;
  /// Copies `bytes` to the host, which looks at them after an event that was recorded later.      from  of Device::allocate, to  of Device::allocate_host.
  virtual void download(Stream& stream, const void* from, std::size_t bytes, void* to) = 0;
  /// out[r] = table[token_ids[r]].      table [vocabulary, hidden], out [rows, hidden].
  virtual void embed(Stream& stream, std::span<const std::int32_t> token_ids, const BFloat16* table, std::int64_t hidden, float* out) = 0;
  /// out = x / rms(x) * weight.      x [rows, hidden], weight [hidden], out [rows, hidden].
  virtual void rms_norm(Stream& stream, const float* x, const float* weight, float epsilon, std::int64_t rows, std::int64_t hidden, BFloat16* out) = 0;
  /// out = x * weight^T.      x [rows, input_features], out [rows, output_features].
  virtual void matmul(Stream& stream, const BFloat16* x, const WeightHandle& weight, std::int64_t rows, float* out) = 0;
  /// matmul of each group's rows by its own weight.
  virtual void grouped_matmul(Stream& stream, const BFloat16* x, const GroupedRows& groups, float* out) = 0;
  /// x += y.      [count].
  virtual void add(Stream& stream, const float* y, std::int64_t count, float* x) = 0;
  /// Normalizes and rotates q and k, writes k and v to their cache slots, leaves q in `q_out`.
  /// qkv [rows, (query_heads + 2 * kv_heads) * head_size]; q_norm and k_norm [head_size]; q_out [rows, query_heads * head_size].
  /// `cos_sin` is the rotation table [positions, head_size]: first half cosines, second half sines.
  virtual void qk_norm_rope_store(Stream& stream, const AttentionShape& shape, const PagedRows& rows, const float* qkv, const float* q_norm,
                                  const float* k_norm, const float* cos_sin, const KvCacheLayer& cache, float* q_out) = 0;
  /// Causal attention of each row over its sequence's positions 0 .. its own, all of which are in the cache; reduced over whole KV blocks in order of position.
  /// q [rows, query_heads * head_size], out the same shape.
  virtual void paged_attention(Stream& stream, const AttentionShape& shape, const PagedRows& rows, const float* q, const KvCacheLayer& cache,
                               BFloat16* out) = 0;
  /// Chooses experts.      logits [rows, expert_count]; expert_ids and weights [rows, top_k], in ascending expert id within a row; equal logits: lowest id
  /// wins.
  virtual void route(Stream& stream, const Router& router, const float* logits, std::int64_t rows, std::int32_t* expert_ids, float* weights) = 0;
  /// out = silu(gate) * up.      gate_up [rows, 2 * width] (gate first), out [rows, width].
  virtual void silu_mul(Stream& stream, const float* gate_up, std::int64_t rows, std::int64_t width, BFloat16* out) = 0;
  /// out = bfloat16(x).      [count].
  virtual void to_bfloat16(Stream& stream, const float* x, std::int64_t count, BFloat16* out) = 0;
  /// out[i] = x[index[i]].      x [*, width], out [index.size(), width].
  virtual void gather_rows(Stream& stream, const BFloat16* x, std::span<const std::int32_t> index, std::int64_t width, BFloat16* out) = 0;
  virtual void gather_rows(Stream& stream, const float* x, std::span<const std::int32_t> index, std::int64_t width, float* out) = 0;
  /// out[r] += sum over j ascending of weights[r, j] * expert_rows[r, j], in float32.      expert_rows [rows * top_k, hidden], out [rows, hidden].
  virtual void weigh_and_sum(Stream& stream, const BFloat16* expert_rows, const float* weights, std::int64_t rows, int top_k, std::int64_t hidden,
                             float* out) = 0;
  /// What chooses tokens where the logits are (lockstep/device/token_sampler.hpp); null: they are in the host's memory, and it samples.
  [[nodiscard]] virtual TokenSampler* token_sampler() { return nullptr; }

  /// What groups rows by expert on the device (lockstep/device/local_experts.hpp). Null: there is nothing to gain, as the host knows the rows of each expert
  /// when it comes to them.      Errors  kResourceExhausted.
  [[nodiscard]] virtual Result<std::unique_ptr<LocalExperts>> make_local_experts(const LocalExpertsOptions& options) = 0;

  /// The instruction set in use ("avx512_core_bf16", "avx2"): part of the configuration hash, since answers may differ in the last bit between two.
  [[nodiscard]] virtual std::string instruction_set() const = 0;

 protected:
  Ops() = default;
};

}  // namespace lockstep::device
