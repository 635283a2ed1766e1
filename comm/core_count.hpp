// How many cores a control group grants, apart from the process's own view of it, so that it can be tested on made-up folders.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

namespace lockstep::comm {

/// The smallest CPU quota on the way from this process's control groups up to their roots, in whole cores, rounded up; nullopt without any quota.
/// Shape   `membership` is the text of /proc/self/cgroup; `mount` is where the control groups are mounted (/sys/fs/cgroup), v1, v2 or both.
[[nodiscard]] std::optional<int> cgroup_core_quota(const std::filesystem::path& mount, std::string_view membership);

}  // namespace lockstep::comm
