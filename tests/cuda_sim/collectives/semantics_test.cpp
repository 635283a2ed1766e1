// Goal    The double of NCCL does what NCCL's documentation says of each call that the communicator makes.
// Method  The calls themselves, by ranks as threads, on the schedules early, late and random. Each test names its source: [Comm] "Creating a Communicator",
//         [Error] "Error handling and communicator abort", [Fault] "Fault Tolerance", [Collective] "Collective Operations", [Pair] "Point-to-point
//         communication", [Group] "Group Calls" of the NCCL 2.28 user guide; [Header] nccl.h of 2.28.9.
#include <algorithm>
#include <string>

#include <gmock/gmock.h>

#include "tests/cuda_sim/collectives/ranks.hpp"

namespace nccl_sim {
namespace {

using Values = std::vector<std::int32_t>;

class Semantics : public ::testing::TestWithParam<Schedule> {
 protected:
  void SetUp() override {
    set_schedule(GetParam(), 11);
    ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 1);
  }
};

// [Header] ncclAllReduce: "leaves identical copies of result on each recvbuff", in place too.
TEST_P(Semantics, AnAllReduceLeavesTheSameOnAllRanks) {
  const ncclUniqueId id = unique_id();
  run_ranks(3, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints sum(rank.pool, rank.stream, {rank.rank, 10});
    const Ints highest(rank.pool, rank.stream, {rank.rank, -rank.rank});
    ASSERT_EQ(rank.launched(ncclAllReduce(sum.device(), sum.device(), 2, ncclInt32, ncclSum, comm, rank.stream), comm), ncclSuccess);
    ASSERT_EQ(rank.launched(ncclAllReduce(highest.device(), highest.device(), 2, ncclInt32, ncclMax, comm, rank.stream), comm), ncclSuccess);
    EXPECT_EQ(sum.read(), (Values{3, 30}));
    EXPECT_EQ(highest.read(), (Values{2, 0}));
    ncclCommAbort(comm);
  });
}

// [Header] ncclAllGather: "receiving data from rank i at offset i*sendcount".
TEST_P(Semantics, AnAllGatherKeepsTheRanksOrder) {
  const ncclUniqueId id = unique_id();
  run_ranks(3, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints ours(rank.pool, rank.stream, {rank.rank, 7});
    const Ints all(rank.pool, rank.stream, Values(6, -1));
    ASSERT_EQ(rank.launched(ncclAllGather(ours.device(), all.device(), 2, ncclInt32, comm, rank.stream), comm), ncclSuccess);
    EXPECT_EQ(all.read(), (Values{0, 7, 1, 7, 2, 7}));
    ncclCommAbort(comm);
  });
}

// [Pair] Sends and receives of one group progress concurrently; messages of a pair keep their order.
TEST_P(Semantics, AGroupOfPairsIsAnExchange) {
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints ours(rank.pool, rank.stream, {rank.rank, 5 + rank.rank, 9});
    const Ints theirs(rank.pool, rank.stream, Values(3, -1));
    const int peer = 1 - rank.rank;
    ASSERT_EQ(ncclGroupStart(), ncclSuccess);
    ASSERT_EQ(ncclSend(ours.device(), 1, ncclInt32, peer, comm, rank.stream), ncclSuccess);
    ASSERT_EQ(ncclSend(ours.device() + 1, 2, ncclInt32, peer, comm, rank.stream), ncclSuccess);
    ASSERT_EQ(ncclRecv(theirs.device(), 1, ncclInt32, peer, comm, rank.stream), ncclSuccess);
    ASSERT_EQ(ncclRecv(theirs.device() + 1, 2, ncclInt32, peer, comm, rank.stream), ncclSuccess);
    ASSERT_EQ(rank.launched(ncclGroupEnd(), comm), ncclSuccess);
    EXPECT_EQ(theirs.read(), (Values{peer, 5 + peer, 9}));
    ncclCommAbort(comm);
  });
}

// [Header] ncclGroupStart: "Nothing will be started on the CUDA stream until ncclGroupEnd."
TEST_P(Semantics, NothingIsOnTheStreamBeforeTheGroupEnds) {
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints value(rank.pool, rank.stream, {1});
    ASSERT_EQ(ncclGroupStart(), ncclSuccess);
    ASSERT_EQ(ncclAllReduce(value.device(), value.device(), 1, ncclInt32, ncclSum, comm, rank.stream), ncclSuccess);
    EXPECT_EQ(cudaStreamQuery(rank.stream), cudaSuccess);
    rank.all->arrive_and_wait();
    ASSERT_EQ(rank.launched(ncclGroupEnd(), comm), ncclSuccess);
    EXPECT_EQ(value.read(), Values{2});
    ncclCommAbort(comm);
  });
  EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage) << "no group is open";
}

// [Comm] A non-blocking start returns ncclInProgress, and is done when all ranks are there; [Fault] ncclCommAbort "can be called at any point, during
// initialization".
TEST_P(Semantics, AStartIsInProgressUntilAllRanksAreThereAndMayBeAborted) {
  const ncclUniqueId id = unique_id();
  const ncclUniqueId never = unique_id();
  run_ranks(2, [&](Rank& rank) {
    if (rank.rank == 0) {
      ncclComm_t const lonely = rank.start(never);
      ncclResult_t state = ncclSuccess;
      for (int i = 0; i < 50; ++i) {
        ASSERT_EQ(ncclCommGetAsyncError(lonely, &state), ncclSuccess);
        ASSERT_EQ(state, ncclInProgress);
      }
      EXPECT_EQ(ncclCommAbort(lonely), ncclSuccess);
    }
    ncclComm_t const comm = rank.connect(id);
    int count = 0;
    int user_rank = -1;
    EXPECT_EQ(ncclCommCount(comm, &count), ncclSuccess);
    EXPECT_EQ(ncclCommUserRank(comm, &user_rank), ncclSuccess);
    EXPECT_EQ(count, 2);
    EXPECT_EQ(user_rank, rank.rank);
    ncclCommAbort(comm);
  });
}

// [Comm] "Using the same CUDA device multiple times as different ranks of the same NCCL communicator is not supported"; NCCL refuses it.
TEST_P(Semantics, TwoRanksOnOneDeviceAreRefused) {
  const ncclUniqueId id = unique_id();
  run_ranks(
      2,
      [&](Rank& rank) {
        ncclComm_t const comm = rank.start(id);
        EXPECT_EQ(Rank::settle(comm), ncclInvalidUsage);
        EXPECT_THAT(ncclGetLastError(comm), ::testing::HasSubstr("Duplicate GPU detected : rank 0 and rank 1"));
        ncclCommAbort(comm);
      },
      false);
}

// [Error] (3) ncclInvalidArgument: "the NCCL call had no effect ... the communicator is still functioning normally".
TEST_P(Semantics, AnInvalidArgumentHasNoEffect) {
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints value(rank.pool, rank.stream, {1});
    EXPECT_EQ(ncclAllReduce(value.device(), value.device(), 1, ncclNumTypes, ncclSum, comm, rank.stream), ncclInvalidArgument);
    EXPECT_EQ(ncclSend(value.device(), 1, ncclInt32, 2, comm, rank.stream), ncclInvalidArgument);
    EXPECT_EQ(ncclAllReduce(value.device(), value.device(), 1, ncclInt32, ncclSum, nullptr, rank.stream), ncclInvalidArgument);
    ASSERT_EQ(rank.launched(ncclAllReduce(value.device(), value.device(), 1, ncclInt32, ncclSum, comm, rank.stream), comm), ncclSuccess);
    EXPECT_EQ(value.read(), Values{2});
    ncclCommAbort(comm);
  });
}

// [Error] "Operations experiencing an asynchronous error will usually not progress and never complete"; ncclCommAbort ends them, and tells nobody.
TEST_P(Semantics, AnAbortEndsWhatRunsHereAndNotElsewhere) {
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints value(rank.pool, rank.stream, {1});
    if (rank.rank == 0) {
      ASSERT_EQ(rank.launched(ncclAllReduce(value.device(), value.device(), 1, ncclInt32, ncclSum, comm, rank.stream), comm), ncclSuccess);
      EXPECT_EQ(cudaStreamQuery(rank.stream), cudaErrorNotReady);
    }
    rank.all->arrive_and_wait();
    if (rank.rank == 1) {
      EXPECT_EQ(ncclCommAbort(comm), ncclSuccess);
    }
    rank.all->arrive_and_wait();
    if (rank.rank == 0) {
      EXPECT_EQ(cudaStreamQuery(rank.stream), cudaErrorNotReady) << "the peer's abort is not ours";
      EXPECT_EQ(ncclCommAbort(comm), ncclSuccess);
      EXPECT_EQ(cudaStreamSynchronize(rank.stream), cudaSuccess);
    }
  });
}

// [Comm] ncclCommFinalize: in progress until all ranks have; then ncclCommDestroy is local.
TEST_P(Semantics, AFinalizeIsInProgressUntilAllRanksCallIt) {
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    if (rank.rank == 0) {
      ASSERT_EQ(ncclCommFinalize(comm), ncclInProgress);
      ncclResult_t state = ncclSuccess;
      for (int i = 0; i < 50; ++i) {
        ASSERT_EQ(ncclCommGetAsyncError(comm, &state), ncclSuccess);
        ASSERT_EQ(state, ncclInProgress);
      }
    }
    rank.all->arrive_and_wait();
    if (rank.rank == 1) {
      ASSERT_EQ(ncclCommFinalize(comm), ncclInProgress);
    }
    EXPECT_EQ(Rank::settle(comm), ncclSuccess);
    EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
  });
}

// [Header] ncclCommShrink: "ranks will be re-ordered to fill the gap of removed ones"; NCCL_SHRINK_ABORT: "First, terminate ongoing parent operations".
TEST_P(Semantics, AShrunkCommunicatorHasTheOtherRanksAlsoWhereOneHangs) {
  const ncclUniqueId id = unique_id();
  run_ranks(3, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    if (rank.rank == 1) {
      rank.all->arrive_and_wait();
      ncclCommAbort(comm);
      return;
    }
    const Ints value(rank.pool, rank.stream, {1});
    ASSERT_EQ(rank.launched(ncclAllReduce(value.device(), value.device(), 1, ncclInt32, ncclSum, comm, rank.stream), comm), ncclSuccess);
    int excluded = 1;
    ncclComm_t shrunk = nullptr;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ASSERT_EQ(ncclCommShrink(comm, &excluded, 1, &shrunk, &config, NCCL_SHRINK_ABORT), ncclInProgress);
    ASSERT_EQ(Rank::settle(comm), ncclSuccess);
    ASSERT_EQ(Rank::settle(shrunk), ncclSuccess);
    int user_rank = -1;
    EXPECT_EQ(ncclCommUserRank(shrunk, &user_rank), ncclSuccess);
    EXPECT_EQ(user_rank, rank.rank / 2);
    const Ints again(rank.pool, rank.stream, {4});
    ASSERT_EQ(rank.launched(ncclAllReduce(again.device(), again.device(), 1, ncclInt32, ncclSum, shrunk, rank.stream), shrunk), ncclSuccess);
    EXPECT_EQ(again.read(), Values{8});
    rank.all->arrive_and_wait();
    ncclCommAbort(comm);
    ncclCommAbort(shrunk);
  });
}

INSTANTIATE_TEST_SUITE_P(Schedules, Semantics, ::testing::Values(kEarly, kLate, kRandom));

// [Group] "Nonblocking Group Operation": with ncclInProgress the work may not be on the stream yet, and no other call may be made.
TEST(LateSemantics, WorkInProgressIsNotOnTheStreamAndNothingElseMayBeCalled) {
  set_schedule(kLate);
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints value(rank.pool, rank.stream, {1});
    ASSERT_EQ(ncclAllReduce(value.device(), value.device(), 1, ncclInt32, ncclSum, comm, rank.stream), ncclInProgress);
    EXPECT_EQ(cudaStreamQuery(rank.stream), cudaSuccess) << "an event recorded now would not wait for it";
    EXPECT_EQ(ncclAllReduce(value.device(), value.device(), 1, ncclInt32, ncclSum, comm, rank.stream), ncclInvalidArgument);
    EXPECT_THAT(ncclGetLastError(comm), ::testing::HasSubstr("before the previous operation returned ncclSuccess"));
    ASSERT_EQ(Rank::settle(comm), ncclSuccess);
    EXPECT_EQ(value.read(), Values{2});
    ncclCommAbort(comm);
  });
}

// [Comm] "Using multiple NCCL communicators concurrently": with NCCL_LAUNCH_ORDER_IMPLICIT the order of the host's calls is that of the device.
TEST(LateSemantics, TheImplicitOrderIsTheHostsWhicheverStreamIsWaitedForFirst) {
  set_schedule(kLate);
  ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 1);
  const ncclUniqueId first = unique_id();
  const ncclUniqueId second = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const a = rank.connect(first);
    ncclComm_t const b = rank.connect(second);
    const Ints x(rank.pool, rank.stream, {1});
    const Ints y(rank.pool, rank.other_stream, {2});
    ASSERT_EQ(rank.launched(ncclAllReduce(x.device(), x.device(), 1, ncclInt32, ncclSum, a, rank.stream), a), ncclSuccess);
    ASSERT_EQ(rank.launched(ncclAllReduce(y.device(), y.device(), 1, ncclInt32, ncclSum, b, rank.other_stream), b), ncclSuccess);
    if (rank.rank == 0) {
      EXPECT_EQ(x.read(), Values{2});
      EXPECT_EQ(y.read(), Values{4});
    } else {
      EXPECT_EQ(y.read(), Values{4});
      EXPECT_EQ(x.read(), Values{2});
    }
    ncclCommAbort(a);
    ncclCommAbort(b);
  });
}

}  // namespace
}  // namespace nccl_sim
