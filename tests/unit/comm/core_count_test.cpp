// Goal    The number of cores honours the control groups' quotas, of both versions, on every level.
// Method  Folders and membership texts as the kernel shows them, made in a temporary folder.
#include "comm/core_count.hpp"

#include <fstream>
#include <string>
#include <unistd.h>

#include <gtest/gtest.h>

#include "lockstep/comm/launch.hpp"

namespace lockstep::comm {
namespace {

class CoreQuota : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "lockstep-cgroup-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    mount_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(mount_); }
  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((mount_ / path).parent_path());
    std::ofstream(mount_ / path) << text;
  }

  std::filesystem::path mount_;
};

TEST_F(CoreQuota, IsNoneWithoutALimit) {
  EXPECT_EQ(cgroup_core_quota(mount_, "0::/\n"), std::nullopt);
  EXPECT_EQ(cgroup_core_quota(mount_, ""), std::nullopt);
  EXPECT_EQ(cgroup_core_quota(mount_, "no colons here"), std::nullopt);
  write("a/cpu.max", "max 100000\n");
  EXPECT_EQ(cgroup_core_quota(mount_, "0::/a\n"), std::nullopt);
}

TEST_F(CoreQuota, IsRoundedUpInVersionTwo) {
  write("a/cpu.max", "150000 100000\n");
  EXPECT_EQ(cgroup_core_quota(mount_, "0::/a\n"), 2);
  write("a/cpu.max", "1000 100000\n");
  EXPECT_EQ(cgroup_core_quota(mount_, "0::/a\n"), 1);
}

TEST_F(CoreQuota, OfAParentBindsItsChildren) {
  write("a/cpu.max", "300000 100000\n");
  write("a/b/cpu.max", "800000 100000\n");
  EXPECT_EQ(cgroup_core_quota(mount_, "0::/a/b/c\n"), 3);
}

TEST_F(CoreQuota, OfAContainerIsReadAtTheMountsRoot) {
  write("cpu.max", "200000 100000\n");
  EXPECT_EQ(cgroup_core_quota(mount_, "0::/docker/that/is/not/mounted/here\n"), 2);
}

TEST_F(CoreQuota, IsReadInVersionOneWhereverTheCpuControllerIsNamed) {
  write("cpu/job/cpu.cfs_quota_us", "250000\n");
  write("cpu/job/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cgroup_core_quota(mount_, "5:memory:/job\n4:cpuset:/job\n3:cpu,cpuacct:/job\n0::/\n"), 3);
  EXPECT_EQ(cgroup_core_quota(mount_, "5:memory:/job\n4:cpuset:/job\n0::/\n"), std::nullopt);
  write("cpu/job/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(cgroup_core_quota(mount_, "3:cpuacct,cpu:/job\n"), std::nullopt);
}

TEST(CoreCount, IsAtLeastOneAndAtMostWhatTheAffinityMaskHas) {
  EXPECT_GE(available_core_count(), 1);
  EXPECT_LE(available_core_count(), sysconf(_SC_NPROCESSORS_CONF));
}

}  // namespace
}  // namespace lockstep::comm
