// Ranks as threads of one process, each with a simulated device of its own, for tests that call NCCL themselves.
#pragma once

#include <barrier>
#include <cstdint>
#include <cstdlib>
#include <cuda_runtime_api.h>
#include <functional>
#include <nccl.h>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/cuda_sim/set_schedule.hpp"

namespace nccl_sim {

using cuda_sim::kEarly;
using cuda_sim::kLate;
using cuda_sim::kRandom;
using cuda_sim::Schedule;
using cuda_sim::set_schedule;

/// Memory of the device that begins and ends with a stream, and its way to the host.
class Ints {
 public:
  Ints(cudaMemPool_t pool, cudaStream_t stream, const std::vector<std::int32_t>& values) : stream_(stream), bytes_(values.size() * sizeof(std::int32_t)) {
    void* data = nullptr;
    EXPECT_EQ(cudaMallocFromPoolAsync(&data, bytes_, pool, stream), cudaSuccess);
    device_ = static_cast<std::int32_t*>(data);
    EXPECT_EQ(cudaHostAlloc(reinterpret_cast<void**>(&host_), bytes_, cudaHostAllocDefault), cudaSuccess);
    std::copy(values.begin(), values.end(), host_);
    EXPECT_EQ(cudaMemcpyAsync(device_, host_, bytes_, cudaMemcpyHostToDevice, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  ~Ints() {
    EXPECT_EQ(cudaFreeAsync(device_, stream_), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    EXPECT_EQ(cudaFreeHost(host_), cudaSuccess);
  }
  Ints(const Ints&) = delete;
  Ints& operator=(const Ints&) = delete;
  [[nodiscard]] std::int32_t* device() const { return device_; }
  /// After all that is on the stream.
  [[nodiscard]] std::vector<std::int32_t> read() const {
    EXPECT_EQ(cudaMemcpyAsync(host_, device_, bytes_, cudaMemcpyDeviceToHost, stream_), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    return {host_, host_ + bytes_ / sizeof(std::int32_t)};
  }

 private:
  const cudaStream_t stream_;
  const std::size_t bytes_;
  std::int32_t* device_ = nullptr;
  std::int32_t* host_ = nullptr;
};

/// One rank's thread.
struct Rank {
  int rank = 0;
  int size = 1;
  cudaMemPool_t pool = nullptr;
  cudaStream_t stream = nullptr;
  cudaStream_t other_stream = nullptr;
  std::barrier<>* all = nullptr;  ///< where all ranks meet, outside NCCL

  [[nodiscard]] ncclComm_t start(const ncclUniqueId& id, bool blocking = false) const {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = blocking ? 1 : 0;
    ncclComm_t made = nullptr;
    EXPECT_EQ(ncclCommInitRankConfig(&made, size, id, rank, &config), blocking ? ncclSuccess : ncclInProgress);
    return made;
  }
  /// What the communicator says once nothing is in progress.
  static ncclResult_t settle(ncclComm_t communicator) {
    ncclResult_t state = ncclInProgress;
    while (state == ncclInProgress) {
      EXPECT_EQ(ncclCommGetAsyncError(communicator, &state), ncclSuccess);
      std::this_thread::yield();
    }
    return state;
  }
  [[nodiscard]] ncclComm_t connect(const ncclUniqueId& id) const {
    ncclComm_t made = start(id);
    EXPECT_EQ(settle(made), ncclSuccess) << ncclGetLastError(made);
    return made;
  }
  /// Until the stream is idle, or the communicator has failed.
  static ncclResult_t finish(ncclComm_t communicator, cudaStream_t stream) {
    ncclResult_t state = ncclSuccess;
    while (cudaStreamQuery(stream) == cudaErrorNotReady && (state == ncclSuccess || state == ncclInProgress)) {
      EXPECT_EQ(ncclCommGetAsyncError(communicator, &state), ncclSuccess);
      std::this_thread::yield();
    }
    return state;
  }
  [[nodiscard]] ncclResult_t launched(ncclResult_t code, ncclComm_t communicator) const { return code == ncclInProgress ? settle(communicator) : code; }
};

inline ncclUniqueId unique_id() {
  ncclUniqueId id{};
  EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  return id;
}

/// `devices_apart` false: all on device 0, which NCCL refuses.
inline void run_ranks(int size, const std::function<void(Rank&)>& body, bool devices_apart = true) {
  std::barrier all(size);
  std::vector<std::thread> threads;
  for (int i = 0; i < size; ++i) {
    threads.emplace_back([&, i] {
      ASSERT_EQ(cudaSetDevice(devices_apart ? i : 0), cudaSuccess);
      Rank rank{.rank = i, .size = size, .all = &all};
      cudaMemPoolProps properties{};
      properties.allocType = cudaMemAllocationTypePinned;
      properties.location.type = cudaMemLocationTypeDevice;
      properties.location.id = devices_apart ? i : 0;
      ASSERT_EQ(cudaMemPoolCreate(&rank.pool, &properties), cudaSuccess);
      ASSERT_EQ(cudaStreamCreateWithFlags(&rank.stream, cudaStreamNonBlocking), cudaSuccess);
      ASSERT_EQ(cudaStreamCreateWithFlags(&rank.other_stream, cudaStreamNonBlocking), cudaSuccess);
      body(rank);
      EXPECT_EQ(cudaStreamDestroy(rank.stream), cudaSuccess);
      EXPECT_EQ(cudaStreamDestroy(rank.other_stream), cudaSuccess);
      EXPECT_EQ(cudaMemPoolDestroy(rank.pool), cudaSuccess);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace nccl_sim
