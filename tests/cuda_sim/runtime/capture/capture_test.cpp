// Goal    Captures and graphs of the simulated runtime do what CUDA's documentation says, refuse what it says they refuse, and show what a device would hide:
// values
//         of the host that a launch of a graph would read stale.
// Method  The calls themselves, on the schedules early, late and random; each test names its source: [Stream], [Graph], [Event], [Types] are the sections of
// the CUDA
//         Runtime API 13.0 "Stream Management", "Graph Management", "Event Management", "Data types used by CUDA Runtime"; [Guide] the CUDA C++ Programming
//         Guide 13.0, "Creating a Graph Using Stream Capture". What is stricter than these says so.
#include <cmath>
#include <memory>
#include <thread>

#include "tests/cuda_sim/runtime_fixture.hpp"

namespace cuda_sim {
namespace {

class Capture : public RuntimeFixture {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");  // streams are threads, which a fork would not have
    RuntimeFixture::SetUp();
  }
  void begin(cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal) { ASSERT_EQ(cudaStreamBeginCapture(a_, mode), cudaSuccess); }
  /// Ends the capture of `a_`, which has to succeed.
  cudaGraphExec_t end() {
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaSuccess);
    cudaGraphExec_t executable = nullptr;
    EXPECT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    return executable;
  }
  /// Ends it in vain.
  void end_with(cudaError_t code) {
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(a_, &graph), code);
    EXPECT_EQ(graph, nullptr);
    static_cast<void>(cudaGetLastError());
    // The stream works again.
    add(a_, zeros(), zeros());
    EXPECT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  }
  void launch(cudaGraphExec_t graph, cudaStream_t stream) {
    ASSERT_EQ(cudaGraphLaunch(graph, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  float value_of(const float* x) {
    EXPECT_EQ(to_host(a_, x, host_), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
    return host_[kCount - 1];
  }
  float* filled(float value) {
    float* const x = zeros();
    fill_host(value);
    EXPECT_EQ(to_device(a_, host_, x), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
    return x;
  }
};

class CaptureOnSchedules : public Capture, public ::testing::WithParamInterface<Schedule> {
 protected:
  void SetUp() override {
    Capture::SetUp();
    set_schedule(GetParam(), 11);
  }
};

// [Guide] "While in capture mode, work is not enqueued for execution, but appended to an internal graph"; [Graph, cudaGraphLaunch].
TEST_P(CaptureOnSchedules, CapturedWorkRunsWithEachLaunchAndNotBefore) {
  float* const x = zeros();
  float* const y = filled(2.0F);
  begin();
  add(a_, y, x);
  add(a_, y, x);
  cudaGraphExec_t graph = end();
  EXPECT_EQ(value_of(x), 0.0F);
  for (const float expected : {4.0F, 8.0F, 12.0F}) {
    launch(graph, b_);
    EXPECT_EQ(value_of(x), expected);
  }
  EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
}

// [Graph, cudaGraphLaunch] "Each launch is ordered behind both any previous work in stream and any previous launches of graphExec."
TEST_P(CaptureOnSchedules, LaunchesOfOneGraphKeepTheirOrderOnDifferentStreams) {
  float* const x = filled(1.0F);
  begin();
  add(a_, x, x);
  cudaGraphExec_t graph = end();
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(cudaGraphLaunch(graph, a_), cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(graph, b_), cudaSuccess);
  }
  ASSERT_EQ(cudaStreamSynchronize(b_), cudaSuccess);
  EXPECT_EQ(value_of(x), 64.0F);
  EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
}

// [Guide, "Cross-stream Dependencies and Events"] "This will cause the other stream to go into capture mode"; joined by an event, its work is in the graph, in
// order.
TEST_P(CaptureOnSchedules, AnotherStreamJoinsByAnEventAndComesBackByOne) {
  float* const x = filled(1.0F);
  float* const y = zeros();
  cudaEvent_t back = nullptr;
  ASSERT_EQ(cudaEventCreateWithFlags(&back, cudaEventDisableTiming), cudaSuccess);
  begin();
  add(a_, x, y);  // 1
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(b_, event_, cudaEventWaitDefault), cudaSuccess);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  ASSERT_EQ(cudaStreamIsCapturing(b_, &status), cudaSuccess);
  EXPECT_EQ(status, cudaStreamCaptureStatusActive);
  add(b_, y, y);  // 2
  ASSERT_EQ(cudaEventRecord(back, b_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(a_, back, cudaEventWaitDefault), cudaSuccess);
  add(a_, y, y);  // 4
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(a_, &graph), cudaSuccess);
  std::size_t nodes = 0;
  ASSERT_EQ(cudaGraphGetNodes(graph, nullptr, &nodes), cudaSuccess);
  EXPECT_EQ(nodes, 3U);
  ASSERT_EQ(cudaStreamIsCapturing(b_, &status), cudaSuccess);
  EXPECT_EQ(status, cudaStreamCaptureStatusNone) << "the end takes all streams out";
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  launch(executable, b_);
  EXPECT_EQ(value_of(y), 4.0F);
  EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(back), cudaSuccess);
}

INSTANTIATE_TEST_SUITE_P(Schedules, CaptureOnSchedules, ::testing::Values(kEarly, kLate, kRandom));

// [Guide] branches of a graph have no order among each other: some launch runs them the other way round.
TEST_F(Capture, BranchesRunInEitherOrder) {
  float* const x = filled(1.0F);
  float* const y = zeros();
  cudaEvent_t back = nullptr;
  ASSERT_EQ(cudaEventCreateWithFlags(&back, cudaEventDisableTiming), cudaSuccess);
  begin();
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(b_, event_, cudaEventWaitDefault), cudaSuccess);
  add(a_, x, y);  // y += x
  add(b_, x, x);  // x += x, without an order
  ASSERT_EQ(cudaEventRecord(back, b_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(a_, back, cudaEventWaitDefault), cudaSuccess);
  cudaGraphExec_t graph = end();
  set_schedule(kEarly);
  launch(graph, a_);
  EXPECT_EQ(value_of(y), 1.0F);  // x is 2 now
  set_schedule(kLate);
  launch(graph, a_);
  EXPECT_EQ(value_of(y), 5.0F) << "x was 4 already";
  EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(back), cudaSuccess);
}

// [Guide, "Cross-stream Dependencies and Events"] a forked stream has to be joined before the end; [Types] cudaErrorStreamCaptureUnjoined.
TEST_F(Capture, AStreamThatWasNotJoinedEndsItInVain) {
  float* const x = zeros();
  begin();
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(b_, event_, cudaEventWaitDefault), cudaSuccess);
  add(b_, x, x);
  end_with(cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(cudaStreamSynchronize(b_), cudaSuccess) << "out of the capture, too";
}

// [Stream, cudaStreamEndCapture] "Capture must have been initiated on stream"; [Types] cudaErrorStreamCaptureUnmatched.
TEST_F(Capture, ItEndsOnTheStreamWhereItBegan) {
  begin();
  ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(b_, event_, cudaEventWaitDefault), cudaSuccess);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(b_, &graph), cudaErrorStreamCaptureUnmatched);
  end_with(cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaErrorIllegalState) << "there is none";
  begin();
  EXPECT_EQ(cudaStreamBeginCapture(a_, cudaStreamCaptureModeRelaxed), cudaErrorIllegalState) << "there is one";
  EXPECT_EQ(cudaGraphExecDestroy(end()), cudaSuccess);
}

// [Stream, cudaStreamEndCapture] "If the mode argument to cudaStreamBeginCapture was not cudaStreamCaptureModeRelaxed, this call must be from the same thread".
TEST_F(Capture, ItEndsOnTheThreadWhereItBeganUnlessRelaxed) {
  const auto end_elsewhere = [this] {
    cudaGraph_t graph = nullptr;
    cudaError_t code = cudaSuccess;
    std::thread([&] {
      code = cudaStreamEndCapture(a_, &graph);
      if (graph != nullptr) {
        EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
      }
    }).join();
    return code;
  };
  begin();
  EXPECT_EQ(end_elsewhere(), cudaErrorStreamCaptureWrongThread);
  EXPECT_EQ(cudaGraphExecDestroy(end()), cudaSuccess);
  begin(cudaStreamCaptureModeRelaxed);
  EXPECT_EQ(end_elsewhere(), cudaSuccess);
}

// [Guide, "Prohibited and Unhandled Operations"] "It is invalid to synchronize or query the execution status of a stream which is being captured";
// [Guide, "Invalidation"] "further use of any streams which are being captured ... is invalid and will return an error, until stream capture is ended".
TEST_F(Capture, WaitingForTheStreamSpoilsIt) {
  float* const x = zeros();
  for (const auto ask : {&cudaStreamSynchronize, &cudaStreamQuery}) {
    begin();
    add(a_, x, x);
    EXPECT_EQ(ask(a_), cudaErrorStreamCaptureUnsupported);
    EXPECT_EQ(ask(a_), cudaErrorStreamCaptureInvalidated);
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    ASSERT_EQ(cudaStreamIsCapturing(a_, &status), cudaSuccess);
    EXPECT_EQ(status, cudaStreamCaptureStatusInvalidated);
    EXPECT_EQ(to_host(a_, x, host_), cudaErrorStreamCaptureInvalidated);
    EXPECT_EQ(cudaEventRecord(event_, a_), cudaErrorStreamCaptureInvalidated);
    end_with(cudaErrorStreamCaptureInvalidated);
  }
}

// The same of "a captured event"; [Types] cudaErrorCapturedEvent. Recorded outside it stands for real work again.
TEST_F(Capture, WaitingForACapturedEventSpoilsIt) {
  for (const auto ask : {&cudaEventSynchronize, &cudaEventQuery}) {
    begin();
    ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
    EXPECT_EQ(ask(event_), cudaErrorCapturedEvent);
    end_with(cudaErrorStreamCaptureInvalidated);
    ASSERT_EQ(cudaEventRecord(event_, a_), cudaSuccess);
    EXPECT_EQ(cudaEventSynchronize(event_), cudaSuccess);
  }
}

// The same; how long after another event it was cannot be asked of one that stands for no work.
TEST_F(Capture, ACapturedEventHasNoTime) {
  cudaEvent_t timed = nullptr;
  ASSERT_EQ(cudaEventCreateWithFlags(&timed, cudaEventDefault), cudaSuccess);
  begin();
  ASSERT_EQ(cudaEventRecord(timed, a_), cudaSuccess);
  float ms = 0;
  EXPECT_EQ(cudaEventElapsedTime(&ms, timed, timed), cudaErrorCapturedEvent);
  end_with(cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaEventDestroy(timed), cudaSuccess);
}

// [Types] cudaErrorStreamCaptureIsolation: "A dependency would have been created which crosses the capture sequence boundary."
TEST_F(Capture, ItCannotWaitForWorkOutside) {
  ASSERT_EQ(cudaEventRecord(event_, b_), cudaSuccess);
  begin();
  EXPECT_EQ(cudaStreamWaitEvent(a_, event_, cudaEventWaitDefault), cudaErrorStreamCaptureIsolation);
  end_with(cudaErrorStreamCaptureInvalidated);
}

// [Types] cudaErrorStreamCaptureMerge; [Guide] "It is invalid to merge two separate capture graphs by waiting on a captured event".
TEST_F(Capture, TwoCapturesCannotMerge) {
  begin();
  ASSERT_EQ(cudaStreamBeginCapture(b_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(event_, b_), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(a_, event_, cudaEventWaitDefault), cudaErrorStreamCaptureMerge);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(b_, &graph), cudaErrorStreamCaptureInvalidated);
  end_with(cudaErrorStreamCaptureInvalidated);
}

// [Types, cudaStreamCaptureMode] and [Stream, cudaThreadExchangeStreamCaptureMode]: "potentially unsafe API calls" are prohibited to the thread that captures,
// unless relaxed; by a global capture to all. That allocating page-locked memory is one is stricter than what is written.
TEST_F(Capture, AllocatingForTheHostSpoilsItUnlessRelaxed) {
  void* data = nullptr;
  const auto allocate_elsewhere = [&data] {
    cudaError_t code = cudaSuccess;
    std::thread([&] { code = cudaHostAlloc(&data, 64, cudaHostAllocDefault); }).join();
    return code;
  };
  begin(cudaStreamCaptureModeThreadLocal);
  EXPECT_EQ(allocate_elsewhere(), cudaSuccess);
  EXPECT_EQ(cudaFreeHost(data), cudaErrorStreamCaptureUnsupported);
  end_with(cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaFreeHost(data), cudaSuccess);

  begin(cudaStreamCaptureModeGlobal);
  EXPECT_EQ(allocate_elsewhere(), cudaErrorStreamCaptureUnsupported);
  end_with(cudaErrorStreamCaptureInvalidated);

  begin(cudaStreamCaptureModeRelaxed);
  EXPECT_EQ(cudaHostAlloc(&data, 64, cudaHostAllocDefault), cudaSuccess);
  EXPECT_EQ(cudaGraphExecDestroy(end()), cudaSuccess);
  EXPECT_EQ(cudaFreeHost(data), cudaSuccess);
}

// [Guide] a copy from the host is a node: it reads the memory when the graph runs. What was there at the capture, or for an earlier launch, is poison
// (stricter).
TEST_F(Capture, AHostValueIsReadAtEachLaunchAndStaleOnesArePoison) {
  float* const x = zeros();
  fill_host(1.0F);
  begin();
  ASSERT_EQ(to_device(a_, host_, x), cudaSuccess);
  cudaGraphExec_t graph = end();
  fill_host(2.0F);
  launch(graph, a_);
  EXPECT_EQ(value_of(x), 2.0F) << "written anew";

  fill_host(3.0F);
  begin();
  ASSERT_EQ(to_device(a_, host_, x), cudaSuccess);
  cudaGraphExec_t other = end();
  launch(other, a_);
  EXPECT_TRUE(std::isnan(value_of(x))) << "as it was when captured";
  fill_host(4.0F);
  launch(graph, a_);
  launch(graph, a_);
  EXPECT_TRUE(std::isnan(value_of(x))) << "as it was for the launch before";
  EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaGraphExecDestroy(other), cudaSuccess);
}

TEST_F(Capture, AHostValueThatChangesUnderALaunchIsCaught) {
  float* const x = zeros();
  begin();
  ASSERT_EQ(to_device(a_, host_, x), cudaSuccess);
  cudaGraphExec_t graph = end();
  fill_host(1.0F);
  EXPECT_DEATH(
      {
        static_cast<void>(cudaGraphLaunch(graph, a_));
        host_[7] = 2.0F;
        static_cast<void>(cudaStreamSynchronize(a_));
      },
      "the host changed memory before the copy from it was done");
  EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
}

TEST_F(Capture, AHostThatReadsBeforeALaunchIsDoneReadsPoison) {
  float* const x = filled(5.0F);
  begin();
  ASSERT_EQ(to_host(a_, x, host_), cudaSuccess);
  cudaGraphExec_t graph = end();
  fill_host(1.0F);
  ASSERT_EQ(cudaGraphLaunch(graph, a_), cudaSuccess);
  EXPECT_TRUE(std::isnan(host_[0]));
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  EXPECT_EQ(host_[0], 5.0F);
  EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
}

// [Graph, cudaGraphExecDestroy]; stricter: also while it runs, of which nothing is said.
TEST_F(Capture, AGraphUsedAfterItsDestructionIsCaught) {
  float* const x = zeros();
  begin();
  add(a_, x, x);
  cudaGraphExec_t graph = end();
  EXPECT_DEATH(
      {
        static_cast<void>(cudaGraphExecDestroy(graph));
        static_cast<void>(cudaGraphLaunch(graph, a_));
      },
      "cudaGraphLaunch of a graph that was destroyed, or never was");
  EXPECT_DEATH(
      {
        static_cast<void>(cudaGraphLaunch(graph, a_));
        static_cast<void>(cudaGraphExecDestroy(graph));
      },
      "cudaGraphExecDestroy of a graph that a stream still has to run, or runs");
  EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
}

TEST_F(Capture, MemoryFreedBeforeALaunchIsCaught) {
  float* const x = zeros();
  begin();
  add(a_, x, x);
  cudaGraphExec_t graph = end();
  EXPECT_DEATH(
      {
        static_cast<void>(cudaFreeAsync(x, a_));
        static_cast<void>(cudaGraphLaunch(graph, a_));
        static_cast<void>(cudaStreamSynchronize(a_));
      },
      "used memory after it was freed");
  EXPECT_EQ(cudaGraphExecDestroy(graph), cudaSuccess);
}

TEST_F(Capture, AllocatingFromAPoolInItIsNotSimulated) {
  begin();
  EXPECT_DEATH(static_cast<void>(allocate(a_)), "cudaMallocFromPoolAsync in a capture: memory that belongs to a graph is not simulated");
  EXPECT_EQ(cudaGraphExecDestroy(end()), cudaSuccess);
}

}  // namespace
}  // namespace cuda_sim
