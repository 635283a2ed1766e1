// Goal    Each way of using products wrongly that a device lets pass some of the time shows.
// Method  One mistake a test, on the schedule that shows it.
#include <cmath>

#include "tests/cuda_sim/blas/product_fixture.hpp"

namespace cuda_sim {
namespace {

class ProductMisuse : public ProductFixture {
 protected:
  void SetUp() override {
    // The process that dies is started anew: a fork would have no threads, and streams are threads.
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    ProductFixture::SetUp();
  }
};

TEST_F(ProductMisuse, TwoStreamsWithOneWorkspaceSpoilEachOthersSums) {
  ASSERT_EQ(prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kWorkspaceBytes}), CUBLAS_STATUS_SUCCESS);
  set_rows(4);
  const cublasLtMatmulHeuristicResult_t split = algorithms().front();
  ASSERT_GT(split.workspaceSize, 0U);
  auto* const other = static_cast<float*>(device_memory(kOutputs * kRows * sizeof(float)));
  int spoilt = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    set_schedule(kRandom, seed);
    ASSERT_EQ(multiply(a_, &split.algo, d_data_, workspace_, split.workspaceSize), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(multiply(b_, &split.algo, other, workspace_, split.workspaceSize), CUBLAS_STATUS_SUCCESS);
    const float first = read(a_, d_data_, 1).front();
    const float second = read(b_, other, 1).front();
    spoilt += std::isnan(first) || std::isnan(second) ? 1 : 0;
  }
  EXPECT_GT(spoilt, 0);
}

TEST_F(ProductMisuse, RowsLessAlignedThanWasSaidAreCaught) {
  const cublasLtMatmulHeuristicResult_t chosen = algorithms().front();
  set_rows(1);
  EXPECT_DEATH(static_cast<void>(multiply(a_, &chosen.algo, d_data_ + 1, nullptr, 0)),
               "D at .* is not aligned to 128 bytes, which its algorithm was asked for");
}

TEST_F(ProductMisuse, AnOutputBeyondItsAllocationIsCaught) {
  const cublasLtMatmulHeuristicResult_t chosen = algorithms().front();
  EXPECT_DEATH(static_cast<void>(multiply(a_, &chosen.algo, d_data_ + kOutputs, nullptr, 0)), "cublasLtMatmul: .* are not within one allocation of the device");
}

TEST_F(ProductMisuse, AProductWithoutAnAlgorithmIsCaught) {
  EXPECT_DEATH(static_cast<void>(multiply(a_, nullptr, d_data_, nullptr, 0)), "without an algorithm, which asks for one in each call");
}

TEST_F(ProductMisuse, AHostThatReadsBeforeTheProductIsDoneReadsNothing) {
  set_schedule(kLate);
  const cublasLtMatmulHeuristicResult_t chosen = algorithms().front();
  ASSERT_EQ(multiply(a_, &chosen.algo, d_data_, nullptr, 0), CUBLAS_STATUS_SUCCESS);
  EXPECT_TRUE(std::isnan(read(b_, d_data_, 1).front())) << "another stream, which does not wait";
}

}  // namespace
}  // namespace cuda_sim
