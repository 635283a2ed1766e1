// Goal    Starting MPI fails with an error, in bounded time, when the world is not the launcher's or a peer never arrives.
// Method  Two processes under mpirun. The one that stays away from MPI_Init blocks on a named pipe until the other has its error.
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

LaunchInfo launched_by_mpirun() {
  const Result<LaunchInfo> info = read_launch_info(process_environment());
  EXPECT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->world_size, 2) << "run this under mpirun -n 2";
  EXPECT_FALSE(info->job_id.empty());
  return *info;
}

TEST(MpiStart, WrongLaunchIsRefusedNamingBothWorldsAndMpiIsNotStartedTwice) {
  LaunchInfo launch = launched_by_mpirun();
  launch.world_size = 5;
  const Result<std::unique_ptr<Communicator>> made = make_communicator("mpi", {.launch = launch});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(made.error().message, AllOf(HasSubstr("mpirun says rank"), HasSubstr("of 5"), HasSubstr("of 2")));
  const Result<std::unique_ptr<Communicator>> again = make_communicator("mpi", {.launch = launch});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(again.error().message, HasSubstr("once"));
}

TEST(MpiStart, MissingPeerIsATimeoutWithinTheStartTimeout) {
  const LaunchInfo launch = launched_by_mpirun();
  const std::string pipe = (std::filesystem::temp_directory_path() / ("lockstep-mpi-start-" + launch.job_id)).string();
  ASSERT_TRUE(mkfifo(pipe.c_str(), 0600) == 0 || errno == EEXIST);
  if (launch.rank == 1) {
    // Blocks until rank 0 opens the other end.
    const int reader = open(pipe.c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_GE(reader, 0);
    close(reader);
    return;
  }
  const Result<std::unique_ptr<Communicator>> made = make_communicator("mpi", {.launch = launch, .start_timeout = std::chrono::milliseconds(500)});
  EXPECT_FALSE(made);
  if (!made) {
    EXPECT_EQ(made.error().code, ErrorCode::kTimeout);
    EXPECT_THAT(made.error().message, AllOf(HasSubstr("MPI_Init of rank 0"), HasSubstr("0.5 s"), HasSubstr("2 ranks")));
  }
  const int writer = open(pipe.c_str(), O_WRONLY | O_CLOEXEC);
  EXPECT_GE(writer, 0);
  std::filesystem::remove(pipe);
  // As the daemon must: a thread is still inside MPI_Init.
  std::fflush(nullptr);
  _exit(HasFailure() ? 1 : 0);
}

}  // namespace
}  // namespace lockstep::comm
