// What the tests of the simulated runtime share: memory, streams, and schedules one after the other.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <vector>

#include <gtest/gtest.h>

#include "device/cuda/kernels/launch.hpp"
#include "tests/cuda_sim/set_schedule.hpp"

namespace cuda_sim {

class RuntimeFixture : public ::testing::Test {
 protected:
  static constexpr std::size_t kCount = 300;
  static constexpr std::size_t kBytes = kCount * sizeof(float);

  void SetUp() override {
    set_schedule(kLate);
    static_cast<void>(cudaGetLastError());  // of an earlier test: launches tell the thread's last error
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    ASSERT_EQ(cudaMemPoolCreate(&pool_, &properties), cudaSuccess);
    ASSERT_EQ(cudaStreamCreateWithFlags(&a_, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(cudaStreamCreateWithFlags(&b_, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), cudaSuccess);
    ASSERT_EQ(cudaHostAlloc(reinterpret_cast<void**>(&host_), kBytes, cudaHostAllocDefault), cudaSuccess);
  }
  void TearDown() override {
    EXPECT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(b_), cudaSuccess);
    EXPECT_EQ(cudaStreamDestroy(a_), cudaSuccess);
    EXPECT_EQ(cudaStreamDestroy(b_), cudaSuccess);
    EXPECT_EQ(cudaEventDestroy(event_), cudaSuccess);
    EXPECT_EQ(cudaFreeHost(host_), cudaSuccess);
    EXPECT_EQ(cudaMemPoolDestroy(pool_), cudaSuccess);
  }

  /// kCount floats, of which `stream`'s later work may use.
  float* allocate(cudaStream_t stream) {
    void* data = nullptr;
    EXPECT_EQ(cudaMallocFromPoolAsync(&data, kBytes, pool_, stream), cudaSuccess);
    return static_cast<float*>(data);
  }
  /// Memory that is there, holding zeros.
  float* zeros() {
    float* const data = allocate(a_);
    EXPECT_EQ(cudaMemsetAsync(data, 0, kBytes, a_), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
    return data;
  }
  void fill_host(float value) {
    for (std::size_t i = 0; i < kCount; ++i) {
      host_[i] = value;
    }
  }
  /// x += y, by one of our kernels.
  static void add(cudaStream_t stream, const float* y, float* x) { ASSERT_EQ(lockstep::device::cuda::launch_add(stream, y, kCount, x), cudaSuccess); }
  static cudaError_t to_device(cudaStream_t stream, const float* from, float* to) { return cudaMemcpyAsync(to, from, kBytes, cudaMemcpyHostToDevice, stream); }
  static cudaError_t to_host(cudaStream_t stream, const float* from, float* to) { return cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToHost, stream); }

  cudaMemPool_t pool_ = nullptr;
  cudaStream_t a_ = nullptr;
  cudaStream_t b_ = nullptr;
  cudaEvent_t event_ = nullptr;
  float* host_ = nullptr;
};

}  // namespace cuda_sim
