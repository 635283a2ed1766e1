// Goal    A backend is found by its name, and refuses a launch that it cannot serve.
// Method  The table itself; nothing starts MPI here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(CommRegistry, NamesTheKnownBackendsWhenTheNameIsUnknown) {
  const Result<std::unique_ptr<Communicator>> made = make_communicator("pigeon", {});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(made.error().message, AllOf(HasSubstr("'pigeon'"), HasSubstr("local, mpi")));
}

TEST(CommRegistry, LocalServesARankAlone) {
  const Result<std::unique_ptr<Communicator>> made = make_communicator("local", {});
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ((*made)->size(), 1);
  EXPECT_EQ((*made)->rank(), 0);
  EXPECT_EQ((*made)->transport(), "local");
}

TEST(CommRegistry, LocalRefusesSeveralProcessesAndNamesTheBackendThatServesThem) {
  const Result<std::unique_ptr<Communicator>> made = make_communicator("local", {.launch = {.rank = 1, .world_size = 2, .launcher = "mpirun"}});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(made.error().message, AllOf(HasSubstr("mpirun started 2"), HasSubstr("communicator mpi")));
}

}  // namespace
}  // namespace lockstep::comm
