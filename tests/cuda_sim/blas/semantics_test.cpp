// Goal    The double of cuBLASLt does what NVIDIA's documentation says of each call that the backend makes, and rounds by algorithm.
// Method  The calls themselves on the schedules early, late and random. Sources: [header] is cublasLt.h of CUDA 13.0, the comment of the function or attribute
//         named; [doc] the cuBLAS 13.0 documentation, the section named.
#include <cmath>

#include "tests/cuda_sim/blas/product_fixture.hpp"

namespace cuda_sim {
namespace {

class Product : public ProductFixture, public ::testing::WithParamInterface<Schedule> {
 protected:
  void SetUp() override {
    ProductFixture::SetUp();
    set_schedule(GetParam(), 11);
  }
};

// [header, cublasLtMatmul] "D = alpha * op(A) * op(B) + beta * C"; [doc, "cublasLtMatmul()"] A and B bfloat16, C and D float32, CUBLAS_COMPUTE_32F.
TEST_P(Product, IsTheProductInTheOrderOfItsStream) {
  ASSERT_EQ(prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kWorkspaceBytes}), CUBLAS_STATUS_SUCCESS);
  for (const cublasLtMatmulHeuristicResult_t& result : algorithms()) {
    ASSERT_EQ(cudaMemsetAsync(d_data_, 0, kOutputs * kRows * sizeof(float), a_), cudaSuccess);
    ASSERT_EQ(multiply(a_, &result.algo, d_data_, workspace_, result.workspaceSize), CUBLAS_STATUS_SUCCESS);
    const std::vector<float> found = read(a_, d_data_, kOutputs * kRows);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const float wanted = expected(i / kOutputs, i % kOutputs);
      ASSERT_NEAR(found[i], wanted, 1e-5F * std::abs(wanted)) << "row " << i / kOutputs << ", output " << i % kOutputs << ", splits " << splits_of(result);
    }
  }
}

// [doc, "Results reproducibility"] the same bits for one algorithm and configuration, and not for another one.
TEST_P(Product, HasTheSameBitsByOneAlgorithmAndOthersByAnother) {
  ASSERT_EQ(prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kWorkspaceBytes}), CUBLAS_STATUS_SUCCESS);
  std::vector<std::vector<float>> products;
  for (const cublasLtMatmulHeuristicResult_t& result : algorithms()) {
    set_rows(kRows);
    ASSERT_EQ(multiply(a_, &result.algo, d_data_, workspace_, result.workspaceSize), CUBLAS_STATUS_SUCCESS);
    products.push_back(read(a_, d_data_, kOutputs * kRows));
    set_rows(1);  // fewer rows: the first row's bits stay
    ASSERT_EQ(multiply(a_, &result.algo, d_data_, workspace_, result.workspaceSize), CUBLAS_STATUS_SUCCESS);
    const std::vector<float> row = read(a_, d_data_, kOutputs);
    EXPECT_TRUE(std::equal(row.begin(), row.end(), products.back().begin()));
    set_rows(kRows);
  }
  ASSERT_EQ(products.size(), 3U);
  EXPECT_NE(products[0], products[1]);
  EXPECT_NE(products[0], products[2]);
  EXPECT_NE(products[1], products[2]);
}

// [header, cublasLtMatmulAlgoGetHeuristic] "ordered in increasing estimated compute time": what is fastest depends on the number of rows.
TEST_P(Product, HasAnotherBestAlgorithmForFewRows) {
  ASSERT_EQ(prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kWorkspaceBytes}), CUBLAS_STATUS_SUCCESS);
  set_rows(1);
  EXPECT_GT(splits_of(algorithms().front()), 1);
  set_rows(kRows);
  EXPECT_EQ(splits_of(algorithms().front()), 1);
}

// [header, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES] "default: 0 - no workspace allowed"; [.._REDUCTION_SCHEME_MASK] "use one of the required modes".
TEST_P(Product, IsNotSplitWithoutAWorkspaceOrAReduction) {
  set_rows(1);
  for (const cublasLtMatmulHeuristicResult_t& result : algorithms()) {
    EXPECT_EQ(result.workspaceSize, 0U);
    EXPECT_EQ(splits_of(result), 1);
  }
  ASSERT_EQ(prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kWorkspaceBytes}), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(algorithms().size(), 3U);
  ASSERT_EQ(prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE}), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(algorithms().size(), 2U);
}

// [header, cublasLtMatmulAlgoGetHeuristic] "INVALID_VALUE if requestedAlgoCount is less or equal to zero", "NOT_SUPPORTED if no heuristic function available".
TEST_P(Product, HasNoAlgorithmWhereNoneIsWantedOrAlignmentIsTooSmall) {
  std::vector<cublasLtMatmulHeuristicResult_t> results;
  EXPECT_EQ(ask(results, 0), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(ask(results, 1), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(results.size(), 1U);
  ASSERT_EQ(prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, std::uint32_t{8}), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(ask(results), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_TRUE(results.empty());
}

// [header, cublasLtMatmul] "INVALID_VALUE ... e.g. when workspaceSizeInBytes is less than workspace required by configured algo"; [doc, "cublasLtMatmul()"]
// the workspace is aligned to 256 bytes.
TEST_P(Product, IsRefusedWithTooLittleWorkspace) {
  ASSERT_EQ(prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kWorkspaceBytes}), CUBLAS_STATUS_SUCCESS);
  set_rows(1);
  const cublasLtMatmulHeuristicResult_t split = algorithms().front();
  ASSERT_GT(split.workspaceSize, 0U);
  EXPECT_EQ(multiply(a_, &split.algo, d_data_, workspace_, split.workspaceSize - 1), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(multiply(a_, &split.algo, d_data_, static_cast<std::byte*>(workspace_) + 16, split.workspaceSize), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(multiply(a_, &split.algo, d_data_, workspace_, split.workspaceSize), CUBLAS_STATUS_SUCCESS);
}

// [header, cublasLtMatmul] "INVALID_VALUE if parameters are in conflict", "NOT_INITIALIZED if cuBLASLt handle has not been initialized"; a
// cublasLtMatmulAlgo_t that the library has not filled is in no configuration.
TEST_P(Product, IsRefusedWhereOperandsDoNotFit) {
  const cublasLtMatmulHeuristicResult_t chosen = algorithms().front();
  const std::uint64_t inputs = kInputs - 1;
  ASSERT_EQ(cublasLtMatrixLayoutSetAttribute(b_layout_, CUBLASLT_MATRIX_LAYOUT_ROWS, &inputs, sizeof inputs), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply(a_, &chosen.algo, d_data_, nullptr, 0), CUBLAS_STATUS_INVALID_VALUE);
  const std::uint64_t right = kInputs;
  ASSERT_EQ(cublasLtMatrixLayoutSetAttribute(b_layout_, CUBLASLT_MATRIX_LAYOUT_ROWS, &right, sizeof right), CUBLAS_STATUS_SUCCESS);
  const cublasLtMatmulAlgo_t never_asked_for{};
  EXPECT_EQ(multiply(a_, &never_asked_for, d_data_, nullptr, 0), CUBLAS_STATUS_INVALID_VALUE);
  std::vector<cublasLtMatmulHeuristicResult_t> results;
  cublasLtHandle_t mine = std::exchange(handle_, nullptr);
  EXPECT_EQ(ask(results), CUBLAS_STATUS_NOT_INITIALIZED);
  EXPECT_EQ(multiply(a_, &chosen.algo, d_data_, nullptr, 0), CUBLAS_STATUS_NOT_INITIALIZED);
  handle_ = mine;
}

// [header, ...SetAttribute] "INVALID_VALUE if buf is NULL or sizeInBytes doesn't match size of internal storage for selected attribute".
TEST_P(Product, AttributesHaveTheirSize) {
  const std::uint32_t half = kRows;
  EXPECT_EQ(cublasLtMatrixLayoutSetAttribute(b_layout_, CUBLASLT_MATRIX_LAYOUT_COLS, &half, sizeof half), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(cublasLtMatrixLayoutSetAttribute(b_layout_, CUBLASLT_MATRIX_LAYOUT_COLS, nullptr, sizeof(std::uint64_t)), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint32_t{0}), CUBLAS_STATUS_INVALID_VALUE);
}

INSTANTIATE_TEST_SUITE_P(Schedules, Product, ::testing::Values(kEarly, kLate, kRandom));

}  // namespace
}  // namespace cuda_sim
