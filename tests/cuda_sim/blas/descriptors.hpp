// What cuBLASLt's opaque descriptors hold here, and how attributes are set.
// Source  cublasLt.h of CUDA 13.0; cuBLAS 13.0 documentation, "Using the cuBLASLt API".
#pragma once

#include <cstddef>
#include <cstdint>
#include <cublasLt.h>

namespace cuda_sim {

/// A matrix, column by column.
struct Layout {
  cudaDataType type = CUDA_R_32F;
  std::uint64_t rows = 0;
  std::uint64_t columns = 0;
  std::int64_t leading = 0;

  [[nodiscard]] std::size_t element_bytes() const { return type == CUDA_R_16BF ? 2 : 4; }
  [[nodiscard]] std::size_t bytes() const { return columns == 0 ? 0 : ((columns - 1) * static_cast<std::size_t>(leading) + rows) * element_bytes(); }
};

struct Operation {
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cudaDataType scale = CUDA_R_32F;
  cublasOperation_t a = CUBLAS_OP_N;
  cublasOperation_t b = CUBLAS_OP_N;
};

/// Defaults are the documented ones.
struct Preference {
  std::uint64_t workspace_bytes = 0;
  std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint32_t alignment_a = 256;
  std::uint32_t alignment_b = 256;
  std::uint32_t alignment_c = 256;
  std::uint32_t alignment_d = 256;
};

template <typename Held, typename Handle>
Held* held(Handle handle) {
  return reinterpret_cast<Held*>(handle);  // the handle's type has no members that anybody may use
}

/// Sets `field` from `size` bytes: "INVALID_VALUE if buf is NULL or sizeInBytes doesn't match size of internal storage".
template <typename Field>
cublasStatus_t set_field(Field& field, const void* from, std::size_t size) {
  if (from == nullptr || size != sizeof(Field)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  field = *static_cast<const Field*>(from);
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace cuda_sim
