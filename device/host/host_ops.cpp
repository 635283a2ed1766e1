#include "device/host/host_ops.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "device/host/host_memory.hpp"
#include "lockstep/core/check.hpp"
#include "lockstep/device/local_experts.hpp"

namespace lockstep::device::host {

namespace {

/// Multiply-adds of an attention's scores: with fewer it is done before the pool's threads have noticed it (about 20 us).
constexpr std::int64_t kSharedFromProducts = 400'000;

AttentionArguments attention_arguments(const AttentionShape& shape, const PagedRows& rows, const KvCacheLayer& cache) {
  LOCKSTEP_CHECK(shape.kv_heads > 0 && shape.query_heads % shape.kv_heads == 0 && shape.head_size > 0 && shape.head_size % 2 == 0,
                 "attention of {} query heads, {} kv heads, head size {}", shape.query_heads, shape.kv_heads, shape.head_size);
  LOCKSTEP_CHECK(rows.positions.size() == rows.sequences.size(), "{} positions but {} sequences", rows.positions.size(), rows.sequences.size());
  return {.query_heads = shape.query_heads,
          .kv_heads = shape.kv_heads,
          .head_size = shape.head_size,
          .rms_norm_epsilon = shape.rms_norm_epsilon,
          .rows = rows.rows(),
          .positions = rows.positions.data(),
          .sequences = rows.sequences.data(),
          .block_tables = rows.block_tables.data(),
          .blocks_per_table = rows.blocks_per_table,
          .keys = cache.keys,
          .values = cache.values};
}

template <typename Element>
void copy_rows(const Element* x, std::span<const std::int32_t> index, std::int64_t width, Element* out) {
  for (const std::int32_t row : index) {
    std::memcpy(out, x + row * width, static_cast<std::size_t>(width) * sizeof(Element));
    out += width;
  }
}

const HostWeight& host_weight(const PackedWeight& weight) {
  return static_cast<const HostWeight&>(weight);
}

}  // namespace

Result<std::unique_ptr<Ops>> HostOps::create(const InstructionSet& instruction_set, ComputePool& pool) {
  std::unique_ptr<OneDnnProduct> onednn;
  if (instruction_set.product == ProductKind::kOneDnnBFloat16 || instruction_set.product == ProductKind::kOneDnnFloat32) {
    LOCKSTEP_ASSIGN_OR_RETURN(onednn, OneDnnProduct::create(instruction_set.product, kernels_for(instruction_set.kernels)));
  }
  return std::unique_ptr<Ops>(new HostOps(instruction_set, std::move(onednn), pool));
}

HostOps::HostOps(const InstructionSet& instruction_set, std::unique_ptr<OneDnnProduct> onednn, ComputePool& pool)
    : instruction_set_(instruction_set.name),
      kernels_(&kernels_for(instruction_set.kernels)),
      pool_(&pool),
      uses_amx_(instruction_set.product == ProductKind::kAmx),
      amx_(kernels_for(instruction_set.kernels), pool),
      onednn_(std::move(onednn)),
      panels_(kernels_for(instruction_set.kernels)) {}

Result<WeightHandle> HostOps::pack_weight(const MatrixSource& source) {
  if (source.rows < 1 || source.columns < 1 || source.data == nullptr) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("a weight of {} x {}: expected at least 1 x 1", source.rows, source.columns)};
  }
  if (uses_amx_) {
    return amx_.pack(source);
  }
  if (onednn_ != nullptr) {
    Result<WeightHandle> packed = onednn_->pack(source);
    // A shape that oneDNN computes by something not known to be safe goes our way: slower, and right.
    if (packed || packed.error().code != ErrorCode::kUnsupported) {
      return packed;
    }
  }
  return panels_.pack(source);
}

Status HostOps::prepare(const WeightHandle& weight, std::int64_t rows_max) {
  const HostWeight& packed = host_weight(*weight);
  switch (packed.layout()) {
    case WeightLayout::kTiles:
      return amx_.prepare(packed.shape(), rows_max);
    case WeightLayout::kOneDnn:
      return onednn_->prepare(packed.shape(), rows_max);
    case WeightLayout::kPanels:
      break;
  }
  return panels_.prepare(packed.shape());
}

void HostOps::multiply(const BFloat16* x, const PackedWeight& weight, std::int64_t rows, float* out) {
  const HostWeight& packed = host_weight(weight);
  if (rows == 0) {
    return;
  }
  switch (packed.layout()) {
    case WeightLayout::kTiles:
      amx_.multiply(x, packed, rows, out);
      break;
    case WeightLayout::kOneDnn:
      onednn_->multiply(x, packed, rows, out);
      break;
    case WeightLayout::kPanels:
      panels_.multiply(x, packed, rows, out);
      break;
  }
}

void HostOps::matmul(Stream& /*stream*/, const BFloat16* x, const WeightHandle& weight, std::int64_t rows, float* out) {
  multiply(x, *weight, rows, out);
}

void HostOps::grouped_matmul(Stream& /*stream*/, const BFloat16* x, const GroupedRows& groups, float* out) {
  LOCKSTEP_CHECK(groups.offsets.size() == groups.weights.size() + 1, "{} offsets for {} groups", groups.offsets.size(), groups.weights.size());
  if (uses_amx_) {
    amx_.multiply_groups(x, groups, out);
    return;
  }
  for (std::size_t g = 0; g < groups.weights.size(); ++g) {
    const PackedWeight& weight = *groups.weights[g];
    const std::int64_t first = groups.offsets[g];
    multiply(x + first * weight.input_features(), weight, groups.offsets[g + 1] - first, out + first * weight.output_features());
  }
}

void HostOps::upload(Stream& /*stream*/, const void* from, std::size_t bytes, void* to) {
  std::memcpy(to, from, bytes);
}

void HostOps::download(Stream& /*stream*/, const void* from, std::size_t bytes, void* to) {
  std::memcpy(to, from, bytes);
}

void HostOps::embed(Stream& /*stream*/, std::span<const std::int32_t> token_ids, const BFloat16* table, std::int64_t hidden, float* out) {
  for (const std::int32_t token : token_ids) {
    kernels_->widen(table + token * hidden, hidden, out);
    out += hidden;
  }
}

void HostOps::rms_norm(Stream& /*stream*/, const float* x, const float* weight, float epsilon, std::int64_t rows, std::int64_t hidden, BFloat16* out) {
  kernels_->rms_norm(x, weight, epsilon, rows, hidden, out);
}

void HostOps::add(Stream& /*stream*/, const float* y, std::int64_t count, float* x) {
  kernels_->add(y, count, x);
}

void HostOps::qk_norm_rope_store(Stream& /*stream*/, const AttentionShape& shape, const PagedRows& rows, const float* qkv, const float* q_norm,
                                 const float* k_norm, const float* cos_sin, const KvCacheLayer& cache, float* q_out) {
  kernels_->norm_rope_store(attention_arguments(shape, rows, cache), qkv, q_norm, k_norm, cos_sin, q_out);
}

void HostOps::paged_attention(Stream& /*stream*/, const AttentionShape& shape, const PagedRows& rows, const float* q, const KvCacheLayer& cache,
                              BFloat16* out) {
  const AttentionArguments arguments = attention_arguments(shape, rows, cache);
  // Grows at the first call of a shape; its size does not depend on the number of rows.
  const std::int64_t scratch = kernels_->attention_scratch(shape.query_heads, shape.kv_heads, shape.head_size);
  const auto bytes = static_cast<std::size_t>(scratch * pool_->size()) * sizeof(float);
  if (attention_scratch_.bytes() < bytes) {
    Result<Buffer> grown = allocate_zeroed(bytes);
    LOCKSTEP_CHECK(grown.has_value(), "scratch of attention: {}", grown.error().message);
    attention_scratch_ = std::move(*grown);
  }
  runs_.clear();
  std::int64_t pairs = 0;  // of a row and a position that it sees
  for (std::int64_t row = 0; row < arguments.rows; ++row) {
    const bool goes_on = !runs_.empty() && runs_.back().end - runs_.back().begin < kAttentionRows && arguments.sequences[row] == arguments.sequences[row - 1];
    if (!goes_on) {
      runs_.push_back({.begin = row, .end = row});
    }
    ++runs_.back().end;
    pairs += arguments.positions[row] + 1;
  }
  const auto attend = [&](std::int64_t unit, std::size_t participant) {
    const Run& run = runs_[static_cast<std::size_t>(unit / shape.kv_heads)];
    float* mine = attention_scratch_.as<float>() + static_cast<std::int64_t>(participant) * scratch;
    kernels_->attention(arguments, run.begin, run.end, static_cast<int>(unit % shape.kv_heads), q, mine, out);
  };
  const std::int64_t units = std::ssize(runs_) * shape.kv_heads;
  if (pairs * shape.query_heads * shape.head_size < kSharedFromProducts) {
    for (std::int64_t unit = 0; unit < units; ++unit) {
      attend(unit, 0);
    }
    return;
  }
  for (std::int64_t first = 0; first < units; first += ComputePool::kUnitsMax) {
    pool_->run(std::min(units - first, ComputePool::kUnitsMax), [&](std::int64_t unit, std::size_t participant) { attend(first + unit, participant); });
  }
}

void HostOps::route(Stream& /*stream*/, const Router& router, const float* logits, std::int64_t rows, std::int32_t* expert_ids, float* weights) {
  LOCKSTEP_CHECK(router.kind == Router::Kind::kSoftmaxTopK && router.top_k > 0 && router.top_k <= router.expert_count,
                 "router of kind {}, top {} of {} experts", static_cast<int>(router.kind), router.top_k, router.expert_count);
  kernels_->route(logits, rows, router.expert_count, router.top_k, router.normalize_top_k, expert_ids, weights);
}

void HostOps::silu_mul(Stream& /*stream*/, const float* gate_up, std::int64_t rows, std::int64_t width, BFloat16* out) {
  kernels_->silu_mul(gate_up, rows, width, out);
}

void HostOps::to_bfloat16(Stream& /*stream*/, const float* x, std::int64_t count, BFloat16* out) {
  kernels_->narrow(x, count, out);
}

void HostOps::gather_rows(Stream& /*stream*/, const BFloat16* x, std::span<const std::int32_t> index, std::int64_t width, BFloat16* out) {
  copy_rows(x, index, width, out);
}

void HostOps::gather_rows(Stream& /*stream*/, const float* x, std::span<const std::int32_t> index, std::int64_t width, float* out) {
  copy_rows(x, index, width, out);
}

void HostOps::weigh_and_sum(Stream& /*stream*/, const BFloat16* expert_rows, const float* weights, std::int64_t rows, int top_k, std::int64_t hidden,
                            float* out) {
  kernels_->weigh_and_sum(expert_rows, weights, rows, top_k, hidden, out);
}

Result<std::unique_ptr<LocalExperts>> HostOps::make_local_experts(const LocalExpertsOptions& /*options*/) {
  return std::unique_ptr<LocalExperts>();
}

}  // namespace lockstep::device::host
