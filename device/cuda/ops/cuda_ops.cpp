#include "device/cuda/ops/cuda_ops.hpp"

#include <algorithm>
#include <utility>

#include "device/cuda/kernels/launch.hpp"
#include "device/cuda/ops/cuda_local_experts.hpp"
#include "device/cuda/ops/cuda_weight.hpp"
#include "device/cuda/streams/cuda_stream.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::device::cuda {

namespace {

/// What one warp can choose.
constexpr int kTopKMax = 32;

CudaStream& cuda_stream(Stream& stream) {
  return static_cast<CudaStream&>(stream);
}

const CudaWeight& cuda_weight(const WeightHandle& weight) {
  return static_cast<const CudaWeight&>(*weight);
}

template <typename T>
std::span<const std::byte> bytes_of(std::span<const T> values) {
  return std::as_bytes(values);
}

const std::int32_t* as_ints(const void* address) {
  return static_cast<const std::int32_t*>(address);
}

}  // namespace

Result<std::unique_ptr<Ops>> CudaOps::create(std::shared_ptr<const CudaContext> context, DeviceMemory& memory, std::shared_ptr<const HostCopies> copies,
                                             const CudaOpsOptions& options) {
  std::unique_ptr<CudaOps> made(new CudaOps(context, memory, std::move(copies), options.instruction_set));
  if (options.blas) {
    LOCKSTEP_ASSIGN_OR_RETURN(made->dense_, DenseProduct::create(std::move(context), memory, options.blas, options.products));
  }
  return std::unique_ptr<Ops>(std::move(made));
}

CudaOps::CudaOps(std::shared_ptr<const CudaContext> context, DeviceMemory& memory, std::shared_ptr<const HostCopies> copies, std::string instruction_set)
    : context_(std::move(context)), memory_(&memory), copies_(std::move(copies)), instruction_set_(std::move(instruction_set)), staging_(context_, memory) {}

template <std::size_t kCount, typename Launch>
void CudaOps::launch_staged(Stream& stream, const char* call, const std::array<std::span<const std::byte>, kCount>& arrays, const Launch& launch) {
  CudaStream& on = cuda_stream(stream);
  if (arrays[0].empty()) {
    return;
  }
  std::array<const void*, kCount> addresses{};
  std::ranges::transform(arrays, addresses.begin(), [this](std::span<const std::byte> array) { return copies_->find(array); });
  if (std::ranges::find(addresses, nullptr) == addresses.end()) {
    on.launched(launch(on.native(), addresses), call);
    return;
  }
  addresses = staging_.begin(on, arrays);
  if (addresses[0] == nullptr) {
    return;
  }
  on.launched(launch(on.native(), addresses), call);
  staging_.end(on);
}

template <typename Launch>
void CudaOps::launch_paged(Stream& stream, const char* call, const AttentionShape& shape, const PagedRows& rows, const KvCacheLayer& cache,
                           const Launch& launch) {
  LOCKSTEP_CHECK(
      shape.kv_heads > 0 && shape.query_heads % shape.kv_heads == 0 && shape.head_size > 0 && shape.head_size % 2 == 0 && shape.head_size <= kHeadSizeMax,
      "attention of {} query heads, {} kv heads, head size {}", shape.query_heads, shape.kv_heads, shape.head_size);
  LOCKSTEP_CHECK(rows.positions.size() == rows.sequences.size(), "{} positions but {} sequences", rows.positions.size(), rows.sequences.size());
  launch_staged(stream, call, std::array{bytes_of(rows.positions), bytes_of(rows.sequences), bytes_of(rows.block_tables)},
                [&](cudaStream_t native, const std::array<const void*, 3>& addresses) {
                  const AttentionArguments arguments{.query_heads = shape.query_heads,
                                                     .kv_heads = shape.kv_heads,
                                                     .head_size = shape.head_size,
                                                     .rms_norm_epsilon = shape.rms_norm_epsilon,
                                                     .positions = as_ints(addresses[0]),
                                                     .sequences = as_ints(addresses[1]),
                                                     .block_tables = as_ints(addresses[2]),
                                                     .blocks_per_table = rows.blocks_per_table,
                                                     .keys = cache.keys,
                                                     .values = cache.values};
                  return launch(native, arguments);
                });
}

Result<WeightHandle> CudaOps::pack_weight(const MatrixSource& source) {
  return CudaWeight::create(*context_, *memory_, source);
}

Status CudaOps::prepare(const WeightHandle& weight, std::int64_t rows_max) {
  // Own kernels are compiled for every shape.
  return dense_ ? dense_->prepare(weight->input_features(), weight->output_features(), rows_max) : Status{};
}

void CudaOps::upload(Stream& stream, const void* from, std::size_t bytes, void* to) {
  cuda_stream(stream).check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cuda_stream(stream).native()), "cudaMemcpyAsync (upload)");
}

void CudaOps::download(Stream& stream, const void* from, std::size_t bytes, void* to) {
  cuda_stream(stream).check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda_stream(stream).native()), "cudaMemcpyAsync (download)");
}

void CudaOps::embed(Stream& stream, std::span<const std::int32_t> token_ids, const BFloat16* table, std::int64_t hidden, float* out) {
  launch_staged(stream, "embed", std::array{bytes_of(token_ids)}, [&](cudaStream_t native, const std::array<const void*, 1>& addresses) {
    return launch_embed(native, as_ints(addresses[0]), table, std::ssize(token_ids), hidden, out);
  });
}

void CudaOps::rms_norm(Stream& stream, const float* x, const float* weight, float epsilon, std::int64_t rows, std::int64_t hidden, BFloat16* out) {
  cuda_stream(stream).launched(launch_rms_norm(cuda_stream(stream).native(), x, weight, epsilon, rows, hidden, out), "rms_norm");
}

void CudaOps::matmul(Stream& stream, const BFloat16* x, const WeightHandle& weight, std::int64_t rows, float* out) {
  const CudaWeight& packed = cuda_weight(weight);
  const DenseProduct::Operands operands{
      .x = x, .weight = packed.data(), .out = out, .rows = rows, .inputs = packed.input_features(), .outputs = packed.output_features()};
  if (rows == 0 || (dense_ && dense_->run(cuda_stream(stream), operands))) {
    return;
  }
  cuda_stream(stream).launched(launch_matmul(cuda_stream(stream).native(), x, packed.data(), rows, packed.input_features(), packed.output_features(), out),
                               "matmul");
}

void CudaOps::grouped_matmul(Stream& stream, const BFloat16* x, const GroupedRows& groups, float* out) {
  LOCKSTEP_CHECK(groups.offsets.size() == groups.weights.size() + 1, "{} offsets for {} groups", groups.offsets.size(), groups.weights.size());
  const std::int64_t rows = groups.offsets.back();
  if (rows == 0) {
    return;
  }
  group_weights_.clear();
  for (const WeightHandle& weight : groups.weights) {
    group_weights_.push_back(cuda_weight(weight).data());
  }
  const PackedWeight& shape = *groups.weights.front();
  launch_staged(stream, "grouped_matmul", std::array{bytes_of(groups.offsets), bytes_of(std::span<const BFloat16* const>(group_weights_))},
                [&](cudaStream_t native, const std::array<const void*, 2>& addresses) {
                  return launch_grouped_matmul(native, x, as_ints(addresses[0]), static_cast<const BFloat16* const*>(addresses[1]), std::ssize(groups.weights),
                                               rows, shape.input_features(), shape.output_features(), out);
                });
}

void CudaOps::add(Stream& stream, const float* y, std::int64_t count, float* x) {
  cuda_stream(stream).launched(launch_add(cuda_stream(stream).native(), y, count, x), "add");
}

void CudaOps::qk_norm_rope_store(Stream& stream, const AttentionShape& shape, const PagedRows& rows, const float* qkv, const float* q_norm, const float* k_norm,
                                 const float* cos_sin, const KvCacheLayer& cache, float* q_out) {
  launch_paged(stream, "qk_norm_rope_store", shape, rows, cache, [&](cudaStream_t native, const AttentionArguments& arguments) {
    return launch_norm_rope_store(native, arguments, rows.rows(), qkv, q_norm, k_norm, cos_sin, q_out);
  });
}

void CudaOps::paged_attention(Stream& stream, const AttentionShape& shape, const PagedRows& rows, const float* q, const KvCacheLayer& cache, BFloat16* out) {
  launch_paged(stream, "paged_attention", shape, rows, cache,
               [&](cudaStream_t native, const AttentionArguments& arguments) { return launch_paged_attention(native, arguments, rows.rows(), q, out); });
}

void CudaOps::route(Stream& stream, const Router& router, const float* logits, std::int64_t rows, std::int32_t* expert_ids, float* weights) {
  LOCKSTEP_CHECK(router.kind == Router::Kind::kSoftmaxTopK && router.top_k > 0 && router.top_k <= router.expert_count && router.top_k <= kTopKMax,
                 "router of kind {}, top {} of {} experts", static_cast<int>(router.kind), router.top_k, router.expert_count);
  cuda_stream(stream).launched(
      launch_route(cuda_stream(stream).native(), logits, rows, router.expert_count, router.top_k, router.normalize_top_k, expert_ids, weights), "route");
}

void CudaOps::silu_mul(Stream& stream, const float* gate_up, std::int64_t rows, std::int64_t width, BFloat16* out) {
  cuda_stream(stream).launched(launch_silu_mul(cuda_stream(stream).native(), gate_up, rows, width, out), "silu_mul");
}

void CudaOps::to_bfloat16(Stream& stream, const float* x, std::int64_t count, BFloat16* out) {
  cuda_stream(stream).launched(launch_narrow(cuda_stream(stream).native(), x, count, out), "to_bfloat16");
}

void CudaOps::gather_rows(Stream& stream, const BFloat16* x, std::span<const std::int32_t> index, std::int64_t width, BFloat16* out) {
  launch_staged(stream, "gather_rows", std::array{bytes_of(index)}, [&](cudaStream_t native, const std::array<const void*, 1>& addresses) {
    return launch_gather(native, x, as_ints(addresses[0]), std::ssize(index), width, out);
  });
}

void CudaOps::gather_rows(Stream& stream, const float* x, std::span<const std::int32_t> index, std::int64_t width, float* out) {
  launch_staged(stream, "gather_rows", std::array{bytes_of(index)}, [&](cudaStream_t native, const std::array<const void*, 1>& addresses) {
    return launch_gather(native, x, as_ints(addresses[0]), std::ssize(index), width, out);
  });
}

void CudaOps::weigh_and_sum(Stream& stream, const BFloat16* expert_rows, const float* weights, std::int64_t rows, int top_k, std::int64_t hidden, float* out) {
  cuda_stream(stream).launched(launch_weigh_and_sum(cuda_stream(stream).native(), expert_rows, weights, rows, top_k, hidden, out), "weigh_and_sum");
}

void CudaOps::sample(Stream& stream, const TokenChoices& choices, std::int32_t* tokens) {
  LOCKSTEP_CHECK(choices.vocabulary > 0 && choices.vocabulary < std::int64_t{1} << 24, "a vocabulary of {} tokens", choices.vocabulary);
  cuda_stream(stream).launched(launch_sample(cuda_stream(stream).native(), choices, tokens), "sample");
}

Result<std::unique_ptr<LocalExperts>> CudaOps::make_local_experts(const LocalExpertsOptions& options) {
  return CudaLocalExperts::create(*context_, *memory_, copies_, options);
}

}  // namespace lockstep::device::cuda
