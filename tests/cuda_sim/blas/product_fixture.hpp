// What the tests of the double share: one product of small whole numbers, whose sums are exact in every order, and the calls that it takes.
#pragma once

#include <array>
#include <cublasLt.h>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/core/bfloat16.hpp"
#include "tests/cuda_sim/runtime_fixture.hpp"

namespace cuda_sim {

/// d [kOutputs, rows] = a [kInputs, kOutputs]^T * b [kInputs, rows], column by column.
class ProductFixture : public RuntimeFixture {
 protected:
  static constexpr std::size_t kInputs = 64;
  static constexpr std::size_t kOutputs = 32;
  static constexpr std::size_t kRows = 24;
  static constexpr std::size_t kWorkspaceBytes = 4 * kOutputs * kRows * sizeof(float);

  void SetUp() override {
    RuntimeFixture::SetUp();
    ASSERT_EQ(cublasLtCreate(&handle_), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    ASSERT_EQ(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(cublasLtMatmulPreferenceCreate(&preference_), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(cublasLtMatrixLayoutCreate(&a_layout_, CUDA_R_16BF, kInputs, kOutputs, kInputs), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(cublasLtMatrixLayoutCreate(&b_layout_, CUDA_R_16BF, kInputs, kRows, kInputs), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(cublasLtMatrixLayoutCreate(&d_layout_, CUDA_R_32F, kOutputs, kRows, kOutputs), CUBLAS_STATUS_SUCCESS);
    a_data_ = upload(kInputs * kOutputs, 5);
    b_data_ = upload(kInputs * kRows, 7);
    d_data_ = static_cast<float*>(device_memory(kOutputs * kRows * sizeof(float)));
    workspace_ = device_memory(kWorkspaceBytes);
  }
  void TearDown() override {
    RuntimeFixture::TearDown();
    EXPECT_EQ(cublasLtMatrixLayoutDestroy(d_layout_), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatrixLayoutDestroy(b_layout_), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatrixLayoutDestroy(a_layout_), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatmulPreferenceDestroy(preference_), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatmulDescDestroy(operation_), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtDestroy(handle_), CUBLAS_STATUS_SUCCESS);
  }

  /// Memory that is there for all streams.
  void* device_memory(std::size_t bytes) {
    void* data = nullptr;
    EXPECT_EQ(cudaMallocFromPoolAsync(&data, bytes, pool_, a_), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
    return data;
  }
  static lockstep::BFloat16 value(std::size_t index, std::size_t period) { return lockstep::BFloat16(static_cast<float>(index % period) - 2.0F); }
  void* upload(std::size_t count, std::size_t period) {
    const std::size_t bytes = count * sizeof(lockstep::BFloat16);
    void* const data = device_memory(bytes);
    lockstep::BFloat16* from = nullptr;
    EXPECT_EQ(cudaHostAlloc(reinterpret_cast<void**>(&from), bytes, cudaHostAllocDefault), cudaSuccess);
    for (std::size_t i = 0; i < count; ++i) {
      from[i] = value(i, period);
    }
    EXPECT_EQ(cudaMemcpyAsync(data, from, bytes, cudaMemcpyHostToDevice, a_), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
    EXPECT_EQ(cudaFreeHost(from), cudaSuccess);
    return data;
  }
  static float expected(std::size_t row, std::size_t output) {
    float sum = 0;
    for (std::size_t i = 0; i < kInputs; ++i) {
      sum += static_cast<float>(value(output * kInputs + i, 5)) * static_cast<float>(value(row * kInputs + i, 7));
    }
    return sum;
  }
  template <typename T>
  cublasStatus_t prefer(cublasLtMatmulPreferenceAttributes_t attribute, T value_of) {
    return cublasLtMatmulPreferenceSetAttribute(preference_, attribute, &value_of, sizeof value_of);
  }
  void set_rows(std::uint64_t rows) {
    ASSERT_EQ(cublasLtMatrixLayoutSetAttribute(b_layout_, CUBLASLT_MATRIX_LAYOUT_COLS, &rows, sizeof rows), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(cublasLtMatrixLayoutSetAttribute(d_layout_, CUBLASLT_MATRIX_LAYOUT_COLS, &rows, sizeof rows), CUBLAS_STATUS_SUCCESS);
  }
  cublasStatus_t ask(std::vector<cublasLtMatmulHeuristicResult_t>& results, int wanted = 8) {
    results.resize(static_cast<std::size_t>(std::max(wanted, 1)));
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, operation_, a_layout_, b_layout_, d_layout_, d_layout_, preference_, wanted, results.data(), &count);
    results.resize(static_cast<std::size_t>(count));
    return status;
  }
  std::vector<cublasLtMatmulHeuristicResult_t> algorithms() {
    std::vector<cublasLtMatmulHeuristicResult_t> results;
    EXPECT_EQ(ask(results), CUBLAS_STATUS_SUCCESS);
    return results;
  }
  static std::int32_t splits_of(const cublasLtMatmulHeuristicResult_t& result) {
    std::int32_t splits = 0;
    std::size_t written = 0;
    EXPECT_EQ(cublasLtMatmulAlgoConfigGetAttribute(&result.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof splits, &written), CUBLAS_STATUS_SUCCESS);
    return splits;
  }
  cublasStatus_t multiply(cudaStream_t stream, const cublasLtMatmulAlgo_t* algorithm, float* d, void* workspace, std::size_t workspace_bytes) {
    const float one = 1.0F;
    const float nothing = 0.0F;
    return cublasLtMatmul(handle_, operation_, &one, a_data_, a_layout_, b_data_, b_layout_, &nothing, d, d_layout_, d, d_layout_, algorithm, workspace,
                          workspace_bytes, stream);
  }
  /// The first `count` numbers of `data`, after `stream`'s work.
  std::vector<float> read(cudaStream_t stream, const float* data, std::size_t count) {
    float* to = nullptr;
    EXPECT_EQ(cudaHostAlloc(reinterpret_cast<void**>(&to), count * sizeof(float), cudaHostAllocDefault), cudaSuccess);
    EXPECT_EQ(cudaMemcpyAsync(to, data, count * sizeof(float), cudaMemcpyDeviceToHost, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    std::vector<float> values(to, to + count);
    EXPECT_EQ(cudaFreeHost(to), cudaSuccess);
    return values;
  }

  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
  cublasLtMatrixLayout_t a_layout_ = nullptr;
  cublasLtMatrixLayout_t b_layout_ = nullptr;
  cublasLtMatrixLayout_t d_layout_ = nullptr;
  void* a_data_ = nullptr;
  void* b_data_ = nullptr;
  float* d_data_ = nullptr;
  void* workspace_ = nullptr;
};

}  // namespace cuda_sim
