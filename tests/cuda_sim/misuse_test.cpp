// Goal    Each way of using streams and memory wrongly, which a device lets pass most of the time, ends the process with a sentence that names it.
// Method  One mistake a test, on the schedule that shows it; beside it the right way, which passes on the same schedule (runtime_test.cpp has more of those).
#include <cmath>
#include <vector>

#include "tests/cuda_sim/runtime_fixture.hpp"

namespace cuda_sim {
namespace {

class Misuse : public RuntimeFixture {
 protected:
  void SetUp() override {
    // The process that dies is started anew: a fork would have no threads, and streams are threads.
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    RuntimeFixture::SetUp();
  }
};

TEST_F(Misuse, AHostThatReadsBeforeTheCopyIsDoneReadsPoison) {
  float* const x = zeros();
  fill_host(5.0F);
  ASSERT_EQ(to_host(a_, x, host_), cudaSuccess);
  EXPECT_TRUE(std::isnan(host_[0])) << "neither what was there nor what will be";
}

TEST_F(Misuse, AHostThatWritesBeforeTheCopyFromThereIsDoneIsCaught) {
  float* const x = zeros();
  fill_host(5.0F);
  EXPECT_DEATH(
      {
        static_cast<void>(to_device(a_, host_, x));
        host_[7] = 6.0F;
        static_cast<void>(cudaStreamSynchronize(a_));
      },
      "the host changed memory before the copy from it was done");
}

TEST_F(Misuse, AMissingEventWaitGivesPoisonOrAnOldValue) {
  float* const x = zeros();
  float* const y = zeros();
  fill_host(3.0F);
  ASSERT_EQ(to_device(a_, host_, x), cudaSuccess);
  add(b_, x, y);  // no event between the two
  ASSERT_EQ(cudaStreamSynchronize(b_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  ASSERT_EQ(to_host(b_, y, host_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(b_), cudaSuccess);
  EXPECT_NE(host_[0], 3.0F);
}

TEST_F(Misuse, MemoryUsedByAnotherStreamBeforeItsAllocationIsCaught) {
  EXPECT_DEATH(
      {
        float* const x = allocate(a_);
        static_cast<void>(cudaMemsetAsync(x, 0, kBytes, b_));
        static_cast<void>(cudaStreamSynchronize(b_));
      },
      "cudaMemsetAsync used memory before its allocation, in the order of streams and events");
}

TEST_F(Misuse, MemoryUsedByAKernelAfterItsFreeIsCaught) {
  float* const x = zeros();
  float* const y = zeros();
  EXPECT_DEATH(
      {
        add(a_, y, x);
        static_cast<void>(cudaFreeAsync(x, b_));  // b does not wait for a
        static_cast<void>(cudaStreamSynchronize(b_));
        static_cast<void>(cudaStreamSynchronize(a_));
      },
      "kernel .*add_kernel.* used memory after it was freed");
}

TEST_F(Misuse, AHostThatTouchesMemoryOfTheDeviceIsCaught) {
  float* const x = zeros();
  EXPECT_DEATH({ x[3] = 1.0F; }, "the host touched memory of the device, which only streams may .byte 12 of an allocation of 1200.");
}

TEST_F(Misuse, AKernelThatRunsOverTheEndIsCaught) {
  float* const x = zeros();
  EXPECT_DEATH(
      {
        static_cast<void>(lockstep::device::cuda::launch_add(a_, x, 100 * kCount, x));
        static_cast<void>(cudaStreamSynchronize(a_));
      },
      "ran over the end of an allocation");
}

TEST_F(Misuse, ACopyBeyondAnAllocationIsCaughtWhenItIsEnqueued) {
  float* const x = zeros();
  EXPECT_DEATH(static_cast<void>(cudaMemcpyAsync(host_, x + 1, kBytes, cudaMemcpyDeviceToHost, a_)), "are not within one allocation of the device");
}

TEST_F(Misuse, AnAsynchronousCopyFromPageableMemoryIsCaught) {
  float* const x = zeros();
  const std::vector<float> pageable(kCount);
  EXPECT_DEATH(static_cast<void>(to_device(a_, pageable.data(), x)), "are not page-locked memory of the host");
}

TEST_F(Misuse, PageLockedMemoryFreedUnderACopyIsCaught) {
  float* const x = zeros();
  EXPECT_DEATH(
      {
        static_cast<void>(to_host(a_, x, host_));
        static_cast<void>(cudaFreeHost(host_));
        static_cast<void>(cudaStreamSynchronize(a_));
      },
      "cudaMemcpyAsync to the host: .* are not page-locked memory of the host, or no longer");
}

TEST_F(Misuse, TheDefaultStreamIsCaught) {
  float* const x = zeros();
  EXPECT_DEATH(static_cast<void>(cudaMemsetAsync(x, 0, kBytes, nullptr)), "cudaMemsetAsync on a default stream");
}

TEST_F(Misuse, MemoryFreedTwiceIsCaught) {
  float* const x = zeros();
  EXPECT_DEATH(
      {
        static_cast<void>(cudaFreeAsync(x, a_));
        static_cast<void>(cudaFreeAsync(x, a_));
        static_cast<void>(cudaStreamSynchronize(a_));
      },
      "freed twice");
}

}  // namespace
}  // namespace cuda_sim
