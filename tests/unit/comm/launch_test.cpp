// Goal    The launcher's variables become a rank, or an error that names the wrong one; never a silent world of one inside a job.
// Method  Made-up environments as mpirun, srun, sbatch and salloc set them.
#include "lockstep/comm/launch.hpp"

#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Variables = std::map<std::string, std::string, std::less<>>;

Result<LaunchInfo> read(const Variables& variables) {
  return read_launch_info([&](std::string_view name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

Variables mpirun_variables() {
  return {{"OMPI_COMM_WORLD_RANK", "3"},       {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
          {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}, {"PMIX_NAMESPACE", "77"},      {"PMIX_RANK", "3"}};
}

Variables srun_variables() {
  return {{"SLURM_JOB_ID", "512"},
          {"SLURM_STEP_ID", "0"},
          {"SLURM_PROCID", "6"},
          {"SLURM_NTASKS", "7"},
          {"SLURM_LOCALID", "0"},
          {"SLURM_NODEID", "3"},
          {"PMIX_NAMESPACE", "slurm.pmix.512.0"},
          {"PMIX_RANK", "6"},
          {"SLURM_STEP_NUM_TASKS", "7"},
          {"SLURM_STEP_TASKS_PER_NODE", "2(x3),1"}};
}

void expect_alone(const Variables& variables) {
  const Result<LaunchInfo> info = read(variables);
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->launcher, "none");
  EXPECT_EQ(info->world_size, 1);
  EXPECT_EQ(info->rank, 0);
}

std::string error_of(const Variables& variables) {
  const Result<LaunchInfo> info = read(variables);
  if (info) {
    return "no error";
  }
  EXPECT_EQ(info.error().code, ErrorCode::kInvalidArgument);
  return info.error().message;
}

TEST(Launch, IsOneRankAloneWhenNobodyLaunchedIt) {
  expect_alone({});
}

TEST(Launch, ReadsMpirunsVariables) {
  const Result<LaunchInfo> info = read(mpirun_variables());
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->launcher, "mpirun");
  EXPECT_EQ(info->rank, 3);
  EXPECT_EQ(info->world_size, 4);
  EXPECT_EQ(info->local_rank, 1);
  EXPECT_EQ(info->local_size, 2);
  EXPECT_EQ(info->job_id, "77");
}

TEST(Launch, PrefersMpirunInsideASlurmStep) {
  Variables variables = srun_variables();
  variables.merge(mpirun_variables());
  const Result<LaunchInfo> info = read(variables);
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->launcher, "mpirun");
  EXPECT_EQ(info->world_size, 4);
}

TEST(Launch, NamesVariableValueAndRangeWhenMpirunsVariablesAreWrong) {
  for (const std::string bad : {"4", "-1", "two", "", "3x", " 3", "99999999999999999999"}) {
    Variables variables = mpirun_variables();
    variables["OMPI_COMM_WORLD_RANK"] = bad;
    EXPECT_THAT(error_of(variables), AllOf(HasSubstr("OMPI_COMM_WORLD_RANK is '" + bad + "'"), HasSubstr("from 0 to 3")));
  }
  Variables variables = mpirun_variables();
  variables["OMPI_COMM_WORLD_SIZE"] = "0";
  EXPECT_THAT(error_of(variables), HasSubstr("OMPI_COMM_WORLD_SIZE is '0'"));
  variables = mpirun_variables();
  variables["OMPI_COMM_WORLD_LOCAL_RANK"] = "2";
  EXPECT_THAT(error_of(variables), AllOf(HasSubstr("OMPI_COMM_WORLD_LOCAL_RANK is '2'"), HasSubstr("from 0 to 1")));
  variables = mpirun_variables();
  variables.erase("OMPI_COMM_WORLD_SIZE");
  EXPECT_THAT(error_of(variables), HasSubstr("OMPI_COMM_WORLD_RANK is set but OMPI_COMM_WORLD_SIZE is not"));
}

TEST(Launch, ReadsSrunsVariablesAndThisNodesShareOfTheTasks) {
  const Result<LaunchInfo> info = read(srun_variables());
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->launcher, "srun");
  EXPECT_EQ(info->rank, 6);
  EXPECT_EQ(info->world_size, 7);
  EXPECT_EQ(info->local_rank, 0);
  EXPECT_EQ(info->local_size, 1);
  EXPECT_EQ(info->job_id, "512.0");

  Variables variables = srun_variables();
  variables["SLURM_NODEID"] = "2";
  variables["SLURM_PROCID"] = "5";
  variables["SLURM_LOCALID"] = "1";
  const Result<LaunchInfo> other = read(variables);
  ASSERT_TRUE(other) << other.error().message;
  EXPECT_EQ(other->local_size, 2);
  EXPECT_EQ(other->local_rank, 1);
}

TEST(Launch, CountsTheTasksOfTheStepAndNotOfTheJob) {
  Variables variables = srun_variables();
  variables["SLURM_NTASKS"] = "64";
  const Result<LaunchInfo> info = read(variables);
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->world_size, 7);
}

TEST(Launch, IsOneRankAloneInTheShellOfABatchScript) {
  expect_alone({{"SLURM_JOB_ID", "512"}, {"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}, {"SLURM_NODEID", "0"}, {"SLURM_NTASKS", "7"}});
}

TEST(Launch, IsOneRankAloneInTheInteractiveShellOfAnAllocation) {
  Variables variables = srun_variables();
  variables["SLURM_STEP_ID"] = "4294967290";
  expect_alone(variables);
}

TEST(Launch, IsOneRankAloneInAStepOfOneTaskWithoutPmix) {
  Variables variables = srun_variables();
  variables.erase("PMIX_RANK");
  variables.erase("PMIX_NAMESPACE");
  variables["SLURM_STEP_NUM_TASKS"] = "1";
  variables["SLURM_PROCID"] = "0";
  expect_alone(variables);
}

TEST(Launch, RefusesAStepOfSeveralTasksThatMpiCannotJoin) {
  Variables variables = srun_variables();
  variables.erase("PMIX_NAMESPACE");
  EXPECT_THAT(error_of(variables), AllOf(HasSubstr("PMIX_NAMESPACE"), HasSubstr("--mpi=pmix")));
}

TEST(Launch, NamesTheListWhenSrunsTasksPerNodeAreWrong) {
  for (const std::string bad : {"", "2(x3)", "2(x),1", "2(x3,1", "x", "2,,2,2", "0(x9)", "9(x9)"}) {
    Variables variables = srun_variables();
    variables["SLURM_STEP_TASKS_PER_NODE"] = bad;
    EXPECT_THAT(error_of(variables), HasSubstr("SLURM_STEP_TASKS_PER_NODE is '" + bad + "'"));
  }
}

TEST(Launch, ReadsTheProcessEnvironment) {
  const EnvironmentReader environment = process_environment();
  EXPECT_TRUE(environment("PATH").has_value());
  EXPECT_FALSE(environment("LOCKSTEP_TEST_NOBODY_SETS_THIS").has_value());
}

}  // namespace
}  // namespace lockstep::comm
