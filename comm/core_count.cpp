#include "comm/core_count.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <sched.h>
#include <string>
#include <vector>

#include "lockstep/comm/launch.hpp"

namespace lockstep::comm {

namespace {

/// A limit for the mask that the kernel is offered; it refuses one smaller than its own.
constexpr std::size_t kCpuCountMax = std::size_t{1} << 16;

std::optional<int> cores_of(double quota_us, double period_us) {
  if (quota_us <= 0 || period_us <= 0) {
    return std::nullopt;  // -1 is v1's way to say "no limit"
  }
  return std::max(1, static_cast<int>(std::ceil(std::min(quota_us / period_us, 1e6))));
}

/// cpu.max is "QUOTA PERIOD" or "max PERIOD".
std::optional<int> quota_v2(const std::filesystem::path& folder) {
  std::ifstream file(folder / "cpu.max");
  double quota_us = 0;
  double period_us = 0;
  return file >> quota_us >> period_us ? cores_of(quota_us, period_us) : std::nullopt;
}

std::optional<int> quota_v1(const std::filesystem::path& folder) {
  std::ifstream quota_file(folder / "cpu.cfs_quota_us");
  std::ifstream period_file(folder / "cpu.cfs_period_us");
  double quota_us = 0;
  double period_us = 0;
  return quota_file >> quota_us && period_file >> period_us ? cores_of(quota_us, period_us) : std::nullopt;
}

std::optional<int> smaller(std::optional<int> left, std::optional<int> right) {
  return left && right ? std::min(left, right) : (left ? left : right);
}

/// A parent's quota binds its children, so every level counts. A container may see its own group as the mount's root while /proc names the host's path: the
/// levels that are not there give nothing.
template <typename Quota>
std::optional<int> quota_up_to_root(const std::filesystem::path& mount, std::string_view group, Quota quota) {
  std::optional<int> result = quota(mount);
  std::filesystem::path folder = mount;
  for (const std::filesystem::path& part : std::filesystem::path(group).relative_path()) {
    folder /= part;
    result = smaller(result, quota(folder));
  }
  return result;
}

bool has_cpu_controller(std::string_view controllers) {
  while (!controllers.empty()) {
    const std::size_t comma = controllers.find(',');
    if (controllers.substr(0, comma) == "cpu") {
      return true;
    }
    controllers = comma == std::string_view::npos ? std::string_view{} : controllers.substr(comma + 1);
  }
  return false;
}

/// Cores of the affinity mask, 0 when the kernel does not tell.
int affinity_core_count() {
  for (std::size_t cpus = 1024; cpus <= kCpuCountMax; cpus *= 2) {
    std::vector<cpu_set_t> mask(cpus / CPU_SETSIZE);
    const std::size_t bytes = mask.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, mask.data()) == 0) {
      return CPU_COUNT_S(bytes, mask.data());
    }
  }
  return 0;
}

}  // namespace

std::optional<int> cgroup_core_quota(const std::filesystem::path& mount, std::string_view membership) {
  std::optional<int> result;
  while (!membership.empty()) {
    const std::size_t end = membership.find('\n');
    const std::string_view line = membership.substr(0, end);
    membership = end == std::string_view::npos ? std::string_view{} : membership.substr(end + 1);
    // "ID:CONTROLLERS:PATH"; v2 is the line "0::PATH".
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) {
      continue;
    }
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string_view group = line.substr(second + 1);
    if (controllers.empty()) {
      result = smaller(result, quota_up_to_root(mount, group, quota_v2));
      result = smaller(result, quota_up_to_root(mount / "unified", group, quota_v2));
    } else if (has_cpu_controller(controllers)) {
      result = smaller(result, quota_up_to_root(mount / "cpu", group, quota_v1));
    }
  }
  return result;
}

int available_core_count() {
  int count = std::max(1, affinity_core_count());
  std::ifstream file("/proc/self/cgroup");
  const std::string membership{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (const std::optional<int> quota = cgroup_core_quota("/sys/fs/cgroup", membership)) {
    count = std::min(count, *quota);
  }
  return count;
}

}  // namespace lockstep::comm
