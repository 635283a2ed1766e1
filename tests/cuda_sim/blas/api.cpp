// The library's functions: handles, algorithms and the product.
// Source  cublasLt.h of CUDA 13.0 (return values); cuBLAS 13.0 documentation: "cublasLtMatmul()" (types that go together, the workspace's alignment),
// "cublasLtMatmulAlgoGetHeuristic()", "cublasLtMatmulPreferenceAttributes_t".
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

#include <fmt/format.h>

#include "tests/cuda_sim/blas/algorithms.hpp"
#include "tests/cuda_sim/hooks/hooks.hpp"
#include "tests/cuda_sim/violation.hpp"

namespace cuda_sim {
namespace {

constexpr const char* kCall = "cublasLtMatmul";
constexpr std::uint32_t kWorkspaceAlignment = 256;
/// Of rows in bytes: less, and tensor cores are out of reach. The real library has slower algorithms for less; the double has none.
constexpr std::uint32_t kAlignmentMin = 16;

std::atomic<std::uint64_t>& questions() {
  static std::atomic<std::uint64_t> count{0};
  return count;
}

struct Matrices {
  const Layout* a = nullptr;
  const Layout* b = nullptr;
  const Layout* d = nullptr;
};

/// Whether the operands fit each other, and are of the one kind that is simulated: transposed bfloat16 by bfloat16, float32 out.
cublasStatus_t check(const Operation* operation, const Matrices& of, const Layout* c) {
  if (operation == nullptr || of.a == nullptr || of.b == nullptr || c == nullptr || of.d == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (operation->compute != CUBLAS_COMPUTE_32F || operation->scale != CUDA_R_32F || operation->a != CUBLAS_OP_T || operation->b != CUBLAS_OP_N ||
      of.a->type != CUDA_R_16BF || of.b->type != CUDA_R_16BF || of.d->type != CUDA_R_32F || c->type != CUDA_R_32F) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const auto dense = [](const Layout& layout) { return layout.leading >= static_cast<std::int64_t>(layout.rows); };
  const bool fits = of.a->rows == of.b->rows && of.a->columns == of.d->rows && of.b->columns == of.d->columns && c->rows == of.d->rows &&
                    c->columns == of.d->columns && dense(*of.a) && dense(*of.b) && dense(*of.d) && of.b->columns > 0;
  return fits ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

/// Rows of a matrix begin at multiples of its leading dimension.
std::uint32_t alignment_of(std::uint32_t pointer, const Layout& layout) {
  const auto bytes = static_cast<std::uint64_t>(layout.leading) * layout.element_bytes();
  const auto lowest = static_cast<std::uint32_t>(bytes & (~bytes + 1));
  return std::min(pointer, lowest);
}

void check_alignment(const void* data, std::uint32_t alignment, const char* name) {
  if (reinterpret_cast<std::uintptr_t>(data) % alignment != 0) {
    violation(fmt::format("{}: {} at {} is not aligned to {} bytes, which its algorithm was asked for", kCall, name, data, alignment));
  }
}

void check_operands(const Product& product, const Matrices& of, const Configured& chosen) {
  check_alignment(product.a, chosen.alignment_a, "A");
  check_alignment(product.b, chosen.alignment_b, "B");
  check_alignment(product.d, chosen.alignment_d, "D");
  cuda_sim_check_device_range(product.a, of.a->bytes(), kCall);
  cuda_sim_check_device_range(product.b, of.b->bytes(), kCall);
  cuda_sim_check_device_range(product.d, of.d->bytes(), kCall);
}

template <void (*kWork)(const Product&, const Algorithm&)>
bool enqueue(cudaStream_t stream, const char* label, const Product& product, const Algorithm& algorithm) {
  struct Work {
    Product product;
    Algorithm algorithm;
  };
  auto work = std::make_unique<Work>(Work{product, algorithm});
  return cuda_sim_enqueue_kernel(
      stream, label,
      [](void* data) {
        const Work& enqueued = *static_cast<Work*>(data);
        kWork(enqueued.product, enqueued.algorithm);
      },
      [](void* data) { delete static_cast<Work*>(data); }, work.release());
}

}  // namespace
}  // namespace cuda_sim

using namespace cuda_sim;  // the API's names are global

/// Whether it was made here.
struct cublasLtContext {
  std::uint64_t magic = kConfiguredMagic;
};

extern "C" {

/// How often an algorithm was asked for.
std::uint64_t cuda_sim_blas_questions() {
  return questions();
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* made) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess) {
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  *made = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

std::size_t cublasLtGetVersion() {
  return CUBLAS_VERSION;
}

const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "another status";
  }
}

const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "success" : "the operation was refused";
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  *count = 0;
  if (handle == nullptr) {
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  if (wanted <= 0 || preference == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const Matrices of{.a = held<Layout>(a), .b = held<Layout>(b), .d = held<Layout>(d)};
  if (const cublasStatus_t checked = check(held<Operation>(operation), of, held<Layout>(c)); checked != CUBLAS_STATUS_SUCCESS) {
    return checked;
  }
  ++questions();
  const Preference& limits = *held<Preference>(preference);
  Configured made{.magic = kConfiguredMagic,
                  .alignment_a = alignment_of(limits.alignment_a, *of.a),
                  .alignment_b = alignment_of(limits.alignment_b, *of.b),
                  .alignment_d = alignment_of(limits.alignment_d, *of.d)};
  if (std::min({made.alignment_a, made.alignment_b, made.alignment_d}) < kAlignmentMin) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  for (const std::uint32_t id : preferred(of.d->columns)) {
    const Algorithm& algorithm = kAlgorithms[id];
    const std::size_t bytes = workspace_bytes(algorithm, of.d->rows, of.d->columns);
    const bool splits = algorithm.splits > 1;
    if (*count == wanted || bytes > limits.workspace_bytes || of.a->rows < std::size_t{algorithm.splits} * algorithm.minimum_split ||
        (splits && (limits.reductions & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) == 0)) {
      continue;
    }
    made.algorithm = id;
    cublasLtMatmulHeuristicResult_t& result = results[(*count)++];
    result = {};
    std::memcpy(&result.algo, &made, sizeof made);
    result.workspaceSize = bytes;
    result.state = CUBLAS_STATUS_SUCCESS;
    result.wavesCount = 1.0F;
  }
  return *count > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
  if (handle == nullptr) {
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  const Matrices of{.a = held<Layout>(a), .b = held<Layout>(b), .d = held<Layout>(d)};
  if (const cublasStatus_t checked = check(held<Operation>(operation), of, held<Layout>(c)); checked != CUBLAS_STATUS_SUCCESS) {
    return checked;
  }
  const Configured* const chosen = configured(algorithm);
  if (chosen == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  result->workspaceSize = workspace_bytes(kAlgorithms[chosen->algorithm], of.d->rows, of.d->columns);
  result->state = CUBLAS_STATUS_SUCCESS;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute, void* to,
                                                    std::size_t size, std::size_t* written) {
  const Configured* const chosen = configured(algorithm);
  if (chosen == nullptr || to == nullptr || size != sizeof(std::int32_t)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const Algorithm& asked = kAlgorithms[chosen->algorithm];
  std::int32_t value = 0;
  switch (attribute) {
    case CUBLASLT_ALGO_CONFIG_ID:
      value = static_cast<std::int32_t>(asked.id);
      break;
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM:
      value = static_cast<std::int32_t>(asked.splits);
      break;
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
  std::memcpy(to, &value, size);
  *written = size;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha, const void* a, cublasLtMatrixLayout_t a_layout,
                              const void* b, cublasLtMatrixLayout_t b_layout, const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace, std::size_t workspace_size,
                              cudaStream_t stream) {
  if (handle == nullptr || handle->magic != kConfiguredMagic) {
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  const Matrices of{.a = held<Layout>(a_layout), .b = held<Layout>(b_layout), .d = held<Layout>(d_layout)};
  if (const cublasStatus_t checked = check(held<Operation>(operation), of, held<Layout>(c_layout)); checked != CUBLAS_STATUS_SUCCESS) {
    return checked;
  }
  if (*static_cast<const float*>(alpha) != 1.0F || *static_cast<const float*>(beta) != 0.0F || c != d) {
    return CUBLAS_STATUS_NOT_SUPPORTED;  // not simulated
  }
  if (algorithm == nullptr) {
    violation("cublasLtMatmul without an algorithm, which asks for one in each call");
  }
  const Configured* const chosen = configured(algorithm);
  if (chosen == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const Algorithm& known = kAlgorithms[chosen->algorithm];
  const std::size_t needed = workspace_bytes(known, of.d->rows, of.d->columns);
  if (workspace_size < needed || reinterpret_cast<std::uintptr_t>(workspace) % kWorkspaceAlignment != 0) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const Product product{.a = static_cast<const std::uint16_t*>(a),
                        .b = static_cast<const std::uint16_t*>(b),
                        .d = static_cast<float*>(d),
                        .parts = static_cast<float*>(workspace),
                        .m = of.d->rows,
                        .n = of.d->columns,
                        .k = of.a->rows,
                        .leading_a = static_cast<std::size_t>(of.a->leading),
                        .leading_b = static_cast<std::size_t>(of.b->leading),
                        .leading_d = static_cast<std::size_t>(of.d->leading)};
  check_operands(product, of, *chosen);
  if (needed > 0) {
    cuda_sim_check_device_range(workspace, needed, kCall);
  }
  const bool enqueued =
      enqueue<compute>(stream, kCall, product, known) && (known.splits == 1 || enqueue<add_parts>(stream, "cublasLtMatmul (its parts' sum)", product, known));
  return enqueued ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // extern "C"
