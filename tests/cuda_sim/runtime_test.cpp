// Goal    The simulated runtime does what CUDA's documentation says of each call that the backend makes.
// Method  The calls themselves, on the schedules early, late and random; each test names its source: [Stream], [Event], [Memory], [Pool], [Execution], [Error]
// are the
//         sections of the CUDA Runtime API 13.0 "Stream Management", "Event Management", "Memory Management", "Stream Ordered Memory Allocator", "Execution
//         Control", "Error Handling"; [Sync] is its page "API synchronization behavior"; [Guide] the CUDA C++ Programming Guide 13.0.
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <latch>
#include <string>
#include <thread>
#include <utility>

#include "tests/cuda_sim/runtime_fixture.hpp"

namespace cuda_sim {
namespace {

class Runtime : public RuntimeFixture, public ::testing::WithParamInterface<Schedule> {
 protected:
  void SetUp() override {
    RuntimeFixture::SetUp();
    set_schedule(GetParam(), 7);
  }
};

// [Guide, "Streams"] "sequence of commands ... that execute in order".
TEST_P(Runtime, WorkOfOneStreamRunsInOrder) {
  float* const x = zeros();
  float* const y = zeros();
  fill_host(1.0F);
  ASSERT_EQ(to_device(a_, host_, y), cudaSuccess);
  for (int i = 0; i < 5; ++i) {
    add(a_, y, x);  // 1, 3, 7, 15, 31
    add(a_, x, y);
  }
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  ASSERT_EQ(to_host(a_, x, host_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  EXPECT_EQ(host_[kCount - 1], 55.0F);
}

// [Stream, cudaStreamWaitEvent] "Makes all future work submitted to stream wait for all work captured in event."
TEST_P(Runtime, AnEventHoldsTheOtherStreamBack) {
  float* const x = zeros();
  float* const y = zeros();
  fill_host(3.0F);
  ASSERT_EQ(to_device(a_, host_, x), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(b_, event_, cudaEventWaitDefault), cudaSuccess);
  add(b_, x, y);
  ASSERT_EQ(cudaStreamSynchronize(b_), cudaSuccess);
  ASSERT_EQ(to_host(b_, y, host_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(b_), cudaSuccess);
  EXPECT_EQ(host_[0], 3.0F);
}

// [Event, cudaEventRecord] "Calls such as cudaEventQuery() or cudaStreamWaitEvent() will then examine or wait for completion of the work that was captured": an
// older wait keeps the older point.
TEST_P(Runtime, AWaitIsForTheRecordOfItsTime) {
  std::latch go(1);
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(b_, event_, cudaEventWaitDefault), cudaSuccess);
  ASSERT_EQ(cudaLaunchHostFunc(
                a_, [](void* data) { static_cast<std::latch*>(data)->wait(); }, &go),
            cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(b_), cudaSuccess) << "would hang if it waited for the second record";
  EXPECT_EQ(cudaEventQuery(event_), cudaErrorNotReady);
  go.count_down();
  EXPECT_EQ(cudaEventSynchronize(event_), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(event_), cudaSuccess);
}

// [Event, cudaEventQuery] "If cudaEventRecord() has not been called on event, this function returns cudaSuccess"; [Stream, cudaStreamWaitEvent] a no-op then.
TEST_P(Runtime, AnEventNeverRecordedHoldsNobodyBack) {
  EXPECT_EQ(cudaEventQuery(event_), cudaSuccess);
  EXPECT_EQ(cudaEventSynchronize(event_), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(b_, event_, cudaEventWaitDefault), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(b_), cudaSuccess);
}

// [Event, cudaEventDestroy] may be called before the event's work is done; [Stream, cudaStreamDestroy] "will return immediately and the resources ... released
// ... once the device has completed all work in stream".
TEST_P(Runtime, WhatWasEnqueuedRunsThoughStreamAndEventAreDestroyed) {
  float* const x = zeros();
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
  fill_host(2.0F);
  ASSERT_EQ(to_device(stream, host_, x), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event, stream), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(a_, event, cudaEventWaitDefault), cudaSuccess);
  ASSERT_EQ(cudaEventDestroy(event), cudaSuccess);
  ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  EXPECT_EQ(cudaStreamQuery(stream), cudaErrorInvalidResourceHandle);
  static_cast<void>(cudaGetLastError());
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  ASSERT_EQ(to_host(a_, x, host_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  EXPECT_EQ(host_[0], 2.0F);
}

// [Stream, cudaStreamQuery] and [Event, cudaEventQuery]: who asks again and again learns of the end.
TEST_P(Runtime, AskingEndsInSuccess) {
  add(a_, zeros(), zeros());
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  while (cudaEventQuery(event_) == cudaErrorNotReady) {
    std::this_thread::yield();
  }
  EXPECT_EQ(cudaEventQuery(event_), cudaSuccess);
  EXPECT_EQ(cudaStreamQuery(a_), cudaSuccess);
}

// [Event, cudaEventElapsedTime] "in milliseconds with a resolution of around 0.5 microseconds"; errors as it lists them.
TEST_P(Runtime, TimeBetweenEventsIsThatOfTheWorkBetween) {
  std::array<cudaEvent_t, 2> timed{};
  for (cudaEvent_t& event : timed) {
    ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDefault), cudaSuccess);
  }
  float ms = -1;
  EXPECT_EQ(cudaEventElapsedTime(&ms, timed[0], timed[1]), cudaErrorInvalidResourceHandle) << "never recorded";
  std::latch go(1);
  ASSERT_EQ(cudaEventRecord(timed[0], a_), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  ASSERT_EQ(cudaEventSynchronize(event_), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&ms, timed[0], timed[1]), cudaErrorInvalidResourceHandle) << "one of them never recorded";
  ASSERT_EQ(cudaLaunchHostFunc(
                a_, [](void* data) { static_cast<std::latch*>(data)->wait(); }, &go),
            cudaSuccess);
  ASSERT_EQ(cudaEventRecord(timed[1], a_), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&ms, timed[0], timed[1]), cudaErrorNotReady);
  EXPECT_EQ(cudaEventElapsedTime(&ms, timed[0], event_), cudaErrorInvalidResourceHandle) << "no time is taken of one of them";
  EXPECT_EQ(cudaEventElapsedTime(nullptr, timed[0], timed[0]), cudaErrorInvalidValue);
  EXPECT_EQ(ms, -1.0F) << "after an error";
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(2)) {  // of the device's time, which is to show
  }
  go.count_down();
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  ASSERT_EQ(cudaEventElapsedTime(&ms, timed[0], timed[1]), cudaSuccess);
  EXPECT_GE(ms, 1.99F);
  float back = 0;
  ASSERT_EQ(cudaEventElapsedTime(&back, timed[1], timed[0]), cudaSuccess);
  EXPECT_EQ(back, -ms);
  for (const cudaEvent_t event : timed) {
    EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
  }
}

// [Pool, cudaMallocAsync] "The returned dptr must not be accessed until the allocation operation completes": in the stream's order, or behind an event.
TEST_P(Runtime, MemoryIsThereInTheOrderOfItsStream) {
  float* const x = allocate(a_);
  ASSERT_EQ(cudaMemsetAsync(x, 0, kBytes, a_), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(b_, event_, cudaEventWaitDefault), cudaSuccess);
  ASSERT_EQ(to_host(b_, x, host_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(b_), cudaSuccess);
  EXPECT_EQ(host_[kCount - 1], 0.0F);
  EXPECT_EQ(cudaFreeAsync(x, b_), cudaSuccess);
}

// [Memory, cudaMalloc] "The memory is not cleared."
TEST_P(Runtime, FreshMemoryIsNoNumber) {
  float* const x = allocate(a_);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(x) % 256, 0U);
  ASSERT_EQ(to_host(a_, x, host_), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  EXPECT_TRUE(std::isnan(host_[0]) && std::isnan(host_[kCount - 1]));
}

// [Pool, cudaMallocFromPoolAsync] cudaErrorMemoryAllocation; [Error, cudaGetLastError] returns the thread's last error and resets it.
TEST_P(Runtime, TooMuchMemoryIsAnErrorAndTheLastOne) {
  void* data = nullptr;
  EXPECT_EQ(cudaMallocFromPoolAsync(&data, std::size_t{1} << 50U, pool_, a_), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_STREQ(cudaGetErrorName(cudaErrorMemoryAllocation), "cudaErrorMemoryAllocation");
  EXPECT_STREQ(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
}

// [Execution, cudaLaunchKernel], [Guide, "Technical Specifications per Compute Capability"]: 1024 threads a block, 65535 blocks in y and z.
TEST_P(Runtime, ALaunchOfAnImpossibleShapeIsAnError) {
  lockstep::device::cuda::AttentionArguments none{};
  none.query_heads = 70'000;
  EXPECT_EQ(lockstep::device::cuda::launch_paged_attention(a_, none, 1, nullptr, nullptr), cudaErrorInvalidConfiguration);
}

// [Stream, cudaStreamCreateWithPriority] "Lower numbers represent greater priorities ... clamped"; [cudaDeviceGetStreamPriorityRange].
TEST_P(Runtime, PrioritiesAreClampedToTheirRange) {
  int lowest = -1;
  int highest = 1;
  ASSERT_EQ(cudaDeviceGetStreamPriorityRange(&lowest, &highest), cudaSuccess);
  EXPECT_EQ(lowest, 0);
  EXPECT_LT(highest, lowest);
  for (const auto& [asked, expected] : {std::pair{-100, highest}, {100, lowest}, {highest, highest}}) {
    cudaStream_t stream = nullptr;
    int priority = 1;
    ASSERT_EQ(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, asked), cudaSuccess);
    EXPECT_EQ(cudaStreamGetPriority(stream, &priority), cudaSuccess);
    EXPECT_EQ(priority, expected);
    EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  }
}

// [Device, cudaSetDevice] "any device ... subsequently ... from this host thread"; a new thread's is device 0.
TEST_P(Runtime, ADeviceThatIsNotThereIsRefused) {
  int count = 0;
  ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  EXPECT_EQ(count, 1);
  EXPECT_EQ(cudaSetDevice(count), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaSetDevice(-1), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
}

std::string schedule_name(const ::testing::TestParamInfo<Schedule>& info) {
  constexpr std::array kNames{"early", "late", "random"};
  return kNames[info.param];
}
INSTANTIATE_TEST_SUITE_P(Schedules, Runtime, ::testing::Values(kEarly, kLate, kRandom), schedule_name);

// [Sync] "the call may return before the device has completed": the schedules are the two ends of what that allows.
TEST_F(RuntimeFixture, EarlyIsBeforeTheCallReturnsAndLateNotBeforeSomebodyWaits) {
  float* const x = zeros();
  set_schedule(kEarly);
  fill_host(1.0F);
  ASSERT_EQ(to_host(a_, x, host_), cudaSuccess);
  EXPECT_EQ(host_[0], 0.0F);
  set_schedule(kLate);
  ASSERT_EQ(to_host(a_, x, host_), cudaSuccess);
  EXPECT_TRUE(std::isnan(host_[0]));
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  EXPECT_EQ(host_[0], 0.0F);
}

}  // namespace
}  // namespace cuda_sim
