// Goal    Each way of calling NCCL wrongly, by which it would hang or give wrong numbers, ends with a sentence that names both sides.
// Method  One mistake a test, by ranks as threads, on the schedule that shows it.
#include <string>

#include <gmock/gmock.h>

#include "tests/cuda_sim/collectives/ranks.hpp"

namespace nccl_sim {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Mismatch : public ::testing::Test {
 protected:
  void SetUp() override { set_schedule(kEarly); }

  /// Both ranks call, and both are told.
  static void expect_told(const std::function<ncclResult_t(Rank&, ncclComm_t, std::int32_t*)>& call, const std::string& one, const std::string& other) {
    const ncclUniqueId id = unique_id();
    run_ranks(2, [&](Rank& rank) {
      ncclComm_t const comm = rank.connect(id);
      const Ints value(rank.pool, rank.stream, std::vector<std::int32_t>(4, 1));
      ASSERT_EQ(rank.launched(call(rank, comm, value.device()), comm), ncclSuccess);
      EXPECT_EQ(Rank::finish(comm, rank.stream), ncclInvalidUsage);
      EXPECT_THAT(ncclGetLastError(comm), AllOf(HasSubstr(one), HasSubstr(other)));
      ncclCommAbort(comm);
    });
  }
};

TEST_F(Mismatch, DifferentCountsAreNamed) {
  expect_told([](Rank& rank, ncclComm_t comm,
                 std::int32_t* data) { return ncclAllReduce(data, data, static_cast<std::size_t>(1 + rank.rank), ncclInt32, ncclSum, comm, rank.stream); },
              "ncclAllReduce(1 of ncclInt32, ncclSum)", "ncclAllReduce(2 of ncclInt32, ncclSum)");
}

TEST_F(Mismatch, DifferentTypesAreNamed) {
  expect_told([](Rank& rank, ncclComm_t comm,
                 std::int32_t* data) { return ncclAllReduce(data, data, 1, rank.rank == 0 ? ncclInt32 : ncclFloat32, ncclSum, comm, rank.stream); },
              "1 of ncclInt32", "1 of ncclFloat32");
}

TEST_F(Mismatch, DifferentReductionsAreNamed) {
  expect_told([](Rank& rank, ncclComm_t comm,
                 std::int32_t* data) { return ncclAllReduce(data, data, 1, ncclInt32, rank.rank == 0 ? ncclSum : ncclMin, comm, rank.stream); },
              "ncclSum", "ncclMin");
}

TEST_F(Mismatch, DifferentCollectivesAreNamed) {
  expect_told(
      [](Rank& rank, ncclComm_t comm, std::int32_t* data) {
        return rank.rank == 0 ? ncclAllReduce(data, data, 1, ncclInt32, ncclSum, comm, rank.stream)
                              : ncclAllGather(data, data, 1, ncclInt32, comm, rank.stream);
      },
      "rank 0 calls ncclAllReduce", "rank 1 calls ncclAllGather");
}

TEST_F(Mismatch, DifferentCountsOfAPairAreNamed) {
  expect_told(
      [](Rank& rank, ncclComm_t comm, std::int32_t* data) {
        return rank.rank == 0 ? ncclSend(data, 3, ncclInt32, 1, comm, rank.stream) : ncclRecv(data, 4, ncclInt32, 0, comm, rank.stream);
      },
      "ncclSend(3 of ncclInt32, to rank 1)", "ncclRecv(4 of ncclInt32, from rank 0)");
}

TEST_F(Mismatch, TwoSendsOutsideAGroupAreADeadlock) {
  expect_told([](Rank& rank, ncclComm_t comm, std::int32_t* data) { return ncclSend(data, 1, ncclInt32, 1 - rank.rank, comm, rank.stream); },
              "rank 0 of communicator", "ncclSend(1 of ncclInt32, to rank 1)");
}

TEST_F(Mismatch, ACollectiveAgainstAPairIsADeadlock) {
  expect_told(
      [](Rank& rank, ncclComm_t comm, std::int32_t* data) {
        return rank.rank == 0 ? ncclAllReduce(data, data, 1, ncclInt32, ncclSum, comm, rank.stream) : ncclSend(data, 1, ncclInt32, 0, comm, rank.stream);
      },
      "ncclAllReduce(1 of ncclInt32, ncclSum)", "ncclSend(1 of ncclInt32, to rank 0)");
}

TEST_F(Mismatch, TwoCommunicatorsInDifferentOrdersAreADeadlockWithoutTheImplicitOrder) {
  set_schedule(kLate);  // a kernel begins when somebody waits for it: rank 0 for the first one, rank 1 for the second
  ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "0", 1);
  const ncclUniqueId first = unique_id();
  const ncclUniqueId second = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const a = rank.connect(first);
    ncclComm_t const b = rank.connect(second);
    const Ints x(rank.pool, rank.stream, {1});
    const Ints y(rank.pool, rank.other_stream, {2});
    ASSERT_EQ(rank.launched(ncclAllReduce(x.device(), x.device(), 1, ncclInt32, ncclSum, a, rank.stream), a), ncclSuccess);
    ASSERT_EQ(rank.launched(ncclAllReduce(y.device(), y.device(), 1, ncclInt32, ncclMax, b, rank.other_stream), b), ncclSuccess);
    ncclComm_t const waited = rank.rank == 0 ? a : b;
    EXPECT_EQ(Rank::finish(waited, rank.rank == 0 ? rank.stream : rank.other_stream), ncclInvalidUsage);
    EXPECT_THAT(ncclGetLastError(waited), AllOf(HasSubstr("deadlock"), HasSubstr("ncclSum"), HasSubstr("ncclMax"), HasSubstr("NCCL_LAUNCH_ORDER_IMPLICIT")));
    rank.all->arrive_and_wait();
    ncclCommAbort(a);
    ncclCommAbort(b);
  });
  ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 1);
}

TEST_F(Mismatch, ARankThatFinalizesWhileAnotherWaitsForItIsNamed) {
  const ncclUniqueId id = unique_id();
  run_ranks(2, [&](Rank& rank) {
    ncclComm_t const comm = rank.connect(id);
    const Ints value(rank.pool, rank.stream, {1});
    const ncclResult_t code = rank.rank == 0 ? ncclAllReduce(value.device(), value.device(), 1, ncclInt32, ncclSum, comm, rank.stream) : ncclCommFinalize(comm);
    EXPECT_TRUE(code == ncclSuccess || code == ncclInProgress);
    EXPECT_EQ(rank.rank == 0 ? Rank::finish(comm, rank.stream) : Rank::settle(comm), ncclInvalidUsage);
    EXPECT_THAT(ncclGetLastError(comm), HasSubstr("rank 1 calls ncclCommFinalize, and rank 0 calls ncclAllReduce"));
    ncclCommAbort(comm);
  });
}

/// A communicator of one rank is enough for mistakes of the host alone.
class HostMistake : public ::testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    set_schedule(kEarly);
  }
  static void alone(const std::function<void(Rank&, ncclComm_t, std::int32_t*)>& body) {
    const ncclUniqueId id = unique_id();
    run_ranks(1, [&](Rank& rank) {
      ncclComm_t const comm = rank.start(id, true);
      const Ints value(rank.pool, rank.stream, {1});
      body(rank, comm, value.device());
    });
  }
};

TEST_F(HostMistake, ACallAfterAnAbortIsCaught) {
  EXPECT_DEATH(alone([](Rank& rank, ncclComm_t comm, std::int32_t* data) {
                 ncclCommAbort(comm);
                 static_cast<void>(ncclAllReduce(data, data, 1, ncclInt32, ncclSum, comm, rank.stream));
               }),
               "ncclAllReduce on a communicator after ncclCommAbort");
}

TEST_F(HostMistake, ASecondAbortIsCaught) {
  EXPECT_DEATH(alone([](Rank& /*rank*/, ncclComm_t comm, std::int32_t* /*data*/) {
                 ncclCommAbort(comm);
                 ncclCommAbort(comm);
               }),
               "ncclCommAbort on a communicator after ncclCommAbort");
}

TEST_F(HostMistake, ABufferThatIsTooSmallIsCaught) {
  EXPECT_DEATH(
      alone([](Rank& rank, ncclComm_t comm, std::int32_t* data) { static_cast<void>(ncclAllReduce(data, data, 1000, ncclInt32, ncclSum, comm, rank.stream)); }),
      "ncclAllReduce: 4000 bytes at .* are not within one allocation of the device");
}

TEST_F(HostMistake, HostMemoryIsCaught) {
  EXPECT_DEATH(alone([](Rank& rank, ncclComm_t comm, std::int32_t* data) {
                 std::int32_t value = 1;
                 static_cast<void>(ncclAllReduce(&value, data, 1, ncclInt32, ncclSum, comm, rank.stream));
               }),
               "are not within one allocation of the device");
}

}  // namespace
}  // namespace nccl_sim
