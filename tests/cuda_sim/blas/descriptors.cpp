// Descriptors and their attributes; an attribute that is not simulated is refused.      Source  cublasLt.h of CUDA 13.0.
#include "tests/cuda_sim/blas/descriptors.hpp"

#include <memory>

using namespace cuda_sim;  // the API's names are global

extern "C" {

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType type, std::uint64_t rows, std::uint64_t columns, std::int64_t leading) {
  auto layout = std::make_unique<Layout>(Layout{.type = type, .rows = rows, .columns = columns, .leading = leading});
  *made = held<cublasLtMatrixLayoutOpaque_t>(layout.release());
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete held<Layout>(layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, const void* from, std::size_t size) {
  Layout& changed = *held<Layout>(layout);
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
      return set_field(changed.rows, from, size);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
      return set_field(changed.columns, from, size);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return set_field(changed.leading, from, size);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute, cudaDataType scale) {
  auto operation = std::make_unique<Operation>(Operation{.compute = compute, .scale = scale});
  *made = held<cublasLtMatmulDescOpaque_t>(operation.release());
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
  delete held<Operation>(operation);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const void* from, std::size_t size) {
  Operation& changed = *held<Operation>(operation);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set_field(changed.a, from, size);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set_field(changed.b, from, size);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = held<cublasLtMatmulPreferenceOpaque_t>(std::make_unique<Preference>().release());
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete held<Preference>(preference);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const void* from,
                                                    std::size_t size) {
  Preference& changed = *held<Preference>(preference);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set_field(changed.workspace_bytes, from, size);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set_field(changed.reductions, from, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set_field(changed.alignment_a, from, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set_field(changed.alignment_b, from, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set_field(changed.alignment_c, from, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set_field(changed.alignment_d, from, size);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

}  // extern "C"
