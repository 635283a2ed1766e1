// Goal    Calls of NCCL that a graph holds do at each launch what NCCL's documentation says, and what it forbids about them is named instead of hanging.
// Method  The calls themselves, by ranks as threads. Sources: [Graph] "Using NCCL with CUDA Graphs", [Concurrent] "Using multiple NCCL communicators
//         concurrently", [Env] "Environment Variables", of the NCCL user guide 2.28 (of the capture modes: 2.12); [Source] src/init.cc and src/enqueue.cc of
//         NCCL 2.28; [Prohibited] CUDA C++ Programming Guide 13.0, "Prohibited and Unhandled Operations".
#include <array>
#include <atomic>
#include <functional>
#include <initializer_list>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "tests/cuda_sim/collectives/ranks.hpp"

namespace nccl_sim {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Values = std::vector<std::int32_t>;

/// What `body` puts on a stream, as a graph.
class Captured {
 public:
  Captured(cudaStream_t stream, const std::function<void()>& body, cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal) : stream_(stream) {
    EXPECT_EQ(cudaStreamBeginCapture(stream, mode), cudaSuccess);
    body();
    cudaGraph_t graph = nullptr;
    code_ = cudaStreamEndCapture(stream, &graph);
    if (code_ == cudaSuccess) {
      EXPECT_EQ(cudaGraphInstantiate(&executable_, graph, 0), cudaSuccess);
      EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    }
  }
  ~Captured() { destroy(); }
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;
  void destroy() {
    if (executable_ != nullptr) {
      EXPECT_EQ(cudaGraphExecDestroy(std::exchange(executable_, nullptr)), cudaSuccess);
    }
  }
  /// How the capture ended.
  [[nodiscard]] cudaError_t code() const { return code_; }
  void launch() const { EXPECT_EQ(cudaGraphLaunch(executable_, stream_), cudaSuccess); }

 private:
  const cudaStream_t stream_;
  cudaError_t code_ = cudaSuccess;
  cudaGraphExec_t executable_ = nullptr;
};

void sum(Rank& rank, ncclComm_t comm, const Ints& values, std::size_t count = 1) {
  ASSERT_EQ(rank.launched(ncclAllReduce(values.device(), values.device(), count, ncclInt32, ncclSum, comm, rank.stream), comm), ncclSuccess);
}

class GraphSemantics : public ::testing::TestWithParam<Schedule> {
 protected:
  void SetUp() override {
    set_schedule(GetParam(), 17);
    ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 1);
  }
};

// [Graph] "NCCL operations can be captured by CUDA Graphs": nothing runs then, and all of it at each launch.
TEST_P(GraphSemantics, ACapturedCallRunsAtEachLaunchWithWhatTheMemoryHoldsThen) {
  const ncclUniqueId id = unique_id();
  run_ranks(3, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints value(rank.pool, rank.stream, {1});
    Captured graph(rank.stream, [&] { sum(rank, comm, value); });
    ASSERT_EQ(graph.code(), cudaSuccess);
    EXPECT_EQ(value.read(), Values{1});
    graph.launch();
    EXPECT_EQ(value.read(), Values{3});
    graph.launch();
    graph.launch();
    EXPECT_EQ(value.read(), Values{27});
    graph.destroy();
    ncclCommAbort(comm);
  });
}

// [Graph] "NCCL's collective, P2P and group operations all support CUDA Graph captures."
TEST_P(GraphSemantics, AGroupOfPairsCanBeCapturedWithOneToOneself) {
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints ours(rank.pool, rank.stream, {rank.rank * 10, rank.rank * 10 + 1});
    const Ints theirs(rank.pool, rank.stream, Values(2, -1));
    const auto exchange = [&] {
      ASSERT_EQ(ncclGroupStart(), ncclSuccess);
      for (int peer = 0; peer < 2; ++peer) {
        ASSERT_EQ(ncclSend(ours.device() + peer, 1, ncclInt32, peer, comm, rank.stream), ncclSuccess);
        ASSERT_EQ(ncclRecv(theirs.device() + peer, 1, ncclInt32, peer, comm, rank.stream), ncclSuccess);
      }
      ASSERT_EQ(rank.launched(ncclGroupEnd(), comm), ncclSuccess);
    };
    exchange();
    Captured graph(rank.stream, exchange);
    ASSERT_EQ(graph.code(), cudaSuccess);
    graph.launch();
    EXPECT_EQ(theirs.read(), (Values{rank.rank, 10 + rank.rank}));
    graph.destroy();
    ncclCommAbort(comm);
  });
}

// [Graph] "Having multiple outstanding NCCL operations that are any combination of graph-captured or non-captured is supported": they keep the host's order.
TEST_P(GraphSemantics, CapturedAndOtherCallsOfACommunicatorMayBeOutstandingTogether) {
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints a(rank.pool, rank.stream, {1});
    const Ints b(rank.pool, rank.other_stream, {5});
    Captured graph(rank.stream, [&] { sum(rank, comm, a); });
    const auto other = [&] {
      ASSERT_EQ(rank.launched(ncclAllReduce(b.device(), b.device(), 1, ncclInt32, ncclMax, comm, rank.other_stream), comm), ncclSuccess);
    };
    other();
    graph.launch();
    other();
    if (rank.rank == 0) {
      EXPECT_EQ(a.read(), Values{2});
    }
    EXPECT_EQ(b.read(), Values{5});
    EXPECT_EQ(a.read(), Values{2});
    graph.destroy();
    ncclCommAbort(comm);
  });
}

// [Concurrent] "When NCCL is captured in a CUDA graph the same rules apply to both capture time and launch time", by the implicit order.
TEST_P(GraphSemantics, LaunchesOfGraphsHaveTheirPlaceInTheImplicitOrder) {
  const ncclUniqueId first = unique_id();
  const ncclUniqueId second = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const a = rank.connect(first);
    ncclComm_t const b = rank.connect(second);
    const Ints x(rank.pool, rank.stream, {1});
    const Ints y(rank.pool, rank.other_stream, {2});
    Captured graph(rank.stream, [&] { sum(rank, a, x); });
    for (int round = 0; round < 3; ++round) {
      graph.launch();
      ASSERT_EQ(rank.launched(ncclAllReduce(y.device(), y.device(), 1, ncclInt32, ncclMax, b, rank.other_stream), b), ncclSuccess);
      const Ints& waited = rank.rank == 0 ? x : y;
      static_cast<void>(waited.read());
    }
    EXPECT_EQ(x.read(), Values{8});
    EXPECT_EQ(y.read(), Values{2});
    graph.destroy();
    ncclCommAbort(a);
    ncclCommAbort(b);
  });
}

// [Source] Calls of one communicator in one capture come after each other, also on streams that have no order among them.
TEST_P(GraphSemantics, CallsOnTwoStreamsOfOneCaptureKeepTheirOrder) {
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints x(rank.pool, rank.stream, {1});
    const Ints y(rank.pool, rank.stream, {2, 2});
    cudaEvent_t event = nullptr;
    ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
    Captured graph(rank.stream, [&] {
      ASSERT_EQ(cudaEventRecord(event, rank.stream), cudaSuccess);
      ASSERT_EQ(cudaStreamWaitEvent(rank.other_stream, event, 0), cudaSuccess);
      ASSERT_EQ(rank.launched(ncclAllReduce(y.device(), y.device(), 2, ncclInt32, ncclSum, comm, rank.other_stream), comm), ncclSuccess);
      sum(rank, comm, x);
      ASSERT_EQ(cudaEventRecord(event, rank.other_stream), cudaSuccess);
      ASSERT_EQ(cudaStreamWaitEvent(rank.stream, event, 0), cudaSuccess);
    });
    ASSERT_EQ(graph.code(), cudaSuccess);
    graph.launch();
    EXPECT_EQ(x.read(), Values{2});
    EXPECT_EQ(y.read(), (Values{4, 4}));
    graph.destroy();
    ncclCommAbort(comm);
    EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
  });
}

// [Source] commDestroySync: "keep polling until all graphs referencing us die".
TEST_P(GraphSemantics, AFinalizeIsInProgressUntilTheGraphsAreDestroyed) {
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints value(rank.pool, rank.stream, {1});
    Captured graph(rank.stream, [&] { sum(rank, comm, value); });
    ASSERT_EQ(ncclCommFinalize(comm), ncclInProgress);
    rank.all->arrive_and_wait();
    ncclResult_t state = ncclSuccess;
    for (int i = 0; i < 50; ++i) {
      ASSERT_EQ(ncclCommGetAsyncError(comm, &state), ncclSuccess);
      ASSERT_EQ(state, ncclInProgress);
    }
    graph.destroy();
    EXPECT_EQ(Rank::settle(comm), ncclSuccess);
    EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
  });
}

// [Source] ncclCommAbort sets the flag that ends kernels, then polls as above.
TEST_P(GraphSemantics, AnAbortEndsAGraphThatRunsAndComesBackAfterItsEnd) {
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints value(rank.pool, rank.stream, {1});
    Captured graph(rank.stream, [&] { sum(rank, comm, value); });
    if (rank.rank == 0) {
      graph.launch();
      EXPECT_EQ(cudaStreamQuery(rank.stream), cudaErrorNotReady);
    }
    std::atomic<bool> is_back = false;
    std::thread abort([&] {
      EXPECT_EQ(ncclCommAbort(comm), ncclSuccess);
      is_back = true;
    });
    EXPECT_EQ(cudaStreamSynchronize(rank.stream), cudaSuccess);  // it would last for ever
    EXPECT_FALSE(is_back);
    graph.destroy();
    abort.join();
  });
}

// [Header] nccl.h of 2.28.9, NCCL_SHRINK_ABORT: "First, terminate ongoing parent operations", those of graphs too.
TEST_P(GraphSemantics, AShrinkEndsTheGraphThatHangsAndTheOtherRanksGoOn) {
  const ncclUniqueId id = unique_id();
  run_ranks(3, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints value(rank.pool, rank.stream, {1});
    Captured graph(rank.stream, [&] { sum(rank, comm, value); });
    if (rank.rank == 1) {
      rank.all->arrive_and_wait();
      graph.destroy();
      ncclCommAbort(comm);
      return;
    }
    graph.launch();
    int excluded = 1;
    ncclComm_t shrunk = nullptr;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ASSERT_EQ(ncclCommShrink(comm, &excluded, 1, &shrunk, &config, NCCL_SHRINK_ABORT), ncclInProgress);
    ASSERT_EQ(Rank::settle(comm), ncclSuccess);
    ASSERT_EQ(Rank::settle(shrunk), ncclSuccess);
    EXPECT_EQ(cudaStreamSynchronize(rank.stream), cudaSuccess);
    const Ints again(rank.pool, rank.stream, {4});
    Captured next(rank.stream, [&] { sum(rank, shrunk, again); });
    next.launch();
    EXPECT_EQ(again.read(), Values{8});
    rank.all->arrive_and_wait();
    graph.destroy();
    next.destroy();
    ncclCommAbort(comm);
    ncclCommAbort(shrunk);
  });
}

INSTANTIATE_TEST_SUITE_P(Schedules, GraphSemantics, ::testing::Values(kEarly, kLate, kRandom));

class GraphMismatch : public ::testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    set_schedule(kEarly);
    ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 1);
  }
  void TearDown() override { ::unsetenv("NCCL_GRAPH_MIXING_SUPPORT"); }

  /// Each rank captures the same sum twice, and does `act`; all are told of both sides.
  static void expect_told(const std::function<void(Rank&, ncclComm_t, const Ints&, std::array<const Captured*, 2>)>& act, const std::string& one,
                          const std::string& other) {
    const ncclUniqueId id = unique_id();
    run_ranks(2, [&](Rank& rank) {
      ncclComm_t const comm = rank.connect(id);
      const Ints values(rank.pool, rank.stream, {1, 1});
      Captured first(rank.stream, [&] { sum(rank, comm, values); });
      Captured second(rank.stream, [&] { sum(rank, comm, values); });
      act(rank, comm, values, {&first, &second});
      EXPECT_EQ(Rank::finish(comm, rank.stream), ncclInvalidUsage);
      EXPECT_THAT(ncclGetLastError(comm), AllOf(HasSubstr(one), HasSubstr(other)));
      end(rank, comm, {&first, &second});
    });
  }
  /// An abort comes back when the graphs have ended, and they end when it has ended what runs.
  static void end(const Rank& rank, ncclComm_t comm, std::initializer_list<Captured*> graphs) {
    std::thread abort([comm] { ncclCommAbort(comm); });
    EXPECT_EQ(cudaStreamSynchronize(rank.stream), cudaSuccess);
    for (Captured* const graph : graphs) {
      graph->destroy();
    }
    abort.join();
  }
  /// A graph of one communicator and a call of another, launched alike and waited for in different orders.
  static void expect_deadlock() {
    set_schedule(kLate);
    const ncclUniqueId first = unique_id();
    const ncclUniqueId second = unique_id();
    run_ranks(2, [&](Rank& rank) {
      ncclComm_t const a = rank.connect(first);
      ncclComm_t const b = rank.connect(second);
      const Ints x(rank.pool, rank.stream, {1});
      const Ints y(rank.pool, rank.other_stream, {2});
      Captured graph(rank.stream, [&] { sum(rank, a, x); });
      graph.launch();
      ASSERT_EQ(rank.launched(ncclAllReduce(y.device(), y.device(), 1, ncclInt32, ncclMax, b, rank.other_stream), b), ncclSuccess);
      ncclComm_t const waited = rank.rank == 0 ? a : b;
      EXPECT_EQ(Rank::finish(waited, rank.rank == 0 ? rank.stream : rank.other_stream), ncclInvalidUsage);
      EXPECT_THAT(ncclGetLastError(waited), AllOf(HasSubstr("deadlock"), HasSubstr("in the graph of capture 1"), HasSubstr("ncclMax")));
      rank.all->arrive_and_wait();
      ncclCommAbort(b);
      end(rank, a, {&graph});
    });
  }
};

// [Graph] "Whether an operation launch is graph-captured is considered a collective property of that operation and therefore must be uniform over all ranks".
TEST_F(GraphMismatch, AGraphAgainstTheCallsThemselvesIsNamed) {
  expect_told(
      [](Rank& rank, ncclComm_t comm, const Ints& values, std::array<const Captured*, 2> graphs) {
        if (rank.rank == 0) {
          graphs[0]->launch();
        } else {
          sum(rank, comm, values);
        }
      },
      "rank 0 calls ncclAllReduce(1 of ncclInt32, ncclSum) in the graph of capture 1", "rank 1 calls ncclAllReduce(1 of ncclInt32, ncclSum)");
}

// [Graph] "each of those ranks must be using the graph derived from that collective capture".
TEST_F(GraphMismatch, GraphsOfDifferentCapturesAreNamed) {
  expect_told([](Rank& rank, ncclComm_t /*comm*/, const Ints& /*values*/,
                 std::array<const Captured*, 2> graphs) { graphs[static_cast<std::size_t>(rank.rank)]->launch(); },
              "in the graph of capture 1", "in the graph of capture 2");
}

TEST_F(GraphMismatch, AGraphAndAnotherCommunicatorAreADeadlockWithoutTheImplicitOrder) {
  ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "0", 1);
  expect_deadlock();
}

// [Env] NCCL_GRAPH_MIXING_SUPPORT: without it there is none of "co-occurring outstanding NCCL launches from ... a CUDA graph and non-captured NCCL calls".
TEST_F(GraphMismatch, AGraphAndAnotherCommunicatorAreADeadlockWithoutMixing) {
  ::setenv("NCCL_GRAPH_MIXING_SUPPORT", "0", 1);
  expect_deadlock();
}

// [Prohibited] What could wait for the device, such as an allocation, spoils the capture.
TEST_F(GraphMismatch, ACommunicatorIsNotMadeInACapture) {
  const ncclUniqueId id = unique_id();
  run_ranks(1, [&](Rank& rank) {
    const Captured graph(rank.stream, [&] {
      ncclComm_t made = nullptr;
      EXPECT_EQ(ncclCommInitRank(&made, 1, id, 0), ncclUnhandledCudaError);
    });
    EXPECT_EQ(graph.code(), cudaErrorStreamCaptureInvalidated);
  });
}

// [Graph], of 2.12: P2P calls "without any previous P2P calls to the same peer(s)" need "the cudaStreamCaptureModeThreadLocal mode".
TEST_F(GraphMismatch, AGlobalCaptureOfTheFirstPairIsSpoiled) {
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints value(rank.pool, rank.stream, {1});
    for (int turn = 0; turn < 2; ++turn) {  // one after the other: a global capture forbids calls of all threads
      rank.all->arrive_and_wait();
      if (turn != rank.rank) {
        continue;
      }
      const auto send = [&] {
        EXPECT_EQ(rank.launched(ncclSend(value.device(), 1, ncclInt32, 1 - rank.rank, comm, rank.stream), comm), ncclUnhandledCudaError);
      };
      const Captured graph(rank.stream, send, cudaStreamCaptureModeGlobal);
      EXPECT_EQ(graph.code(), cudaErrorStreamCaptureInvalidated);
      EXPECT_THAT(ncclGetLastError(comm), HasSubstr("connects to a peer in a capture"));
    }
    rank.all->arrive_and_wait();
    ncclCommAbort(comm);
  });
}

void alone(const std::function<void(Rank&, ncclComm_t, const Ints&)>& body) {
  const ncclUniqueId id = unique_id();
  run_ranks(1, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints value(rank.pool, rank.stream, {1});
    body(rank, comm, value);
  });
}

TEST_F(GraphMismatch, ALaunchAfterAnAbortIsCaught) {
  EXPECT_DEATH(alone([](Rank& rank, ncclComm_t comm, const Ints& value) {
                 const Captured graph(rank.stream, [&] { sum(rank, comm, value); });
                 std::thread([comm] { ncclCommAbort(comm); }).detach();
                 while (cudaStreamSynchronize(rank.stream) == cudaSuccess) {
                   graph.launch();
                 }
               }),
               "cudaGraphLaunch of ncclAllReduce.*, whose communicator was ended by ncclCommAbort");
}

TEST_F(GraphMismatch, ADestroyWhileAGraphLivesIsCaught) {
  EXPECT_DEATH(alone([](Rank& rank, ncclComm_t comm, const Ints& value) {
                 const Captured graph(rank.stream, [&] { sum(rank, comm, value); });
                 ncclCommDestroy(comm);
               }),
               "ncclCommDestroy of a communicator whose calls are in a graph blocks");
}

TEST_F(GraphMismatch, ACaptureThatEndsBeforeItsCallIsCaught) {
  set_schedule(kLate);
  EXPECT_DEATH(alone([](Rank& rank, ncclComm_t comm, const Ints& value) {
                 const Captured graph(
                     rank.stream, [&] { EXPECT_EQ(ncclAllReduce(value.device(), value.device(), 1, ncclInt32, ncclSum, comm, rank.stream), ncclInProgress); });
                 static_cast<void>(Rank::settle(comm));
               }),
               "was in progress when its stream's capture began or ended");
}

}  // namespace
}  // namespace nccl_sim
