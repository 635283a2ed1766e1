// The share of its memory that this process uses, from /proc and the cgroups (version 2).
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <fcntl.h>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <unistd.h>

#include "lockstep/core/deadline.hpp"
#include "lockstep/core/file_descriptor.hpp"
#include "lockstep/micro_batch/micro_batch_sizer.hpp"

namespace lockstep {

namespace {

constexpr Duration kReadAgainAfter = std::chrono::milliseconds(1);

std::optional<std::uint64_t> read_number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} ? std::optional(value) : std::nullopt;  // "max" is no limit
}

std::optional<std::uint64_t> machine_bytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page_bytes = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && page_bytes > 0 ? std::optional(static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page_bytes)) : std::nullopt;
}

/// The smallest limit of this process's cgroup and those above it.
std::optional<std::uint64_t> limit_bytes() {
  std::optional<std::uint64_t> limit = machine_bytes();
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (!line.starts_with("0::/")) {
      continue;
    }
    std::string folder = line.substr(3);
    while (true) {
      std::ifstream file("/sys/fs/cgroup" + folder + "/memory.max");
      if (std::string text; file >> text) {
        if (const auto bytes = read_number(text); bytes && *bytes > 0) {
          limit = limit ? std::min(*limit, *bytes) : *bytes;
        }
      }
      if (folder.empty()) {
        break;
      }
      folder.resize(folder.find_last_of('/'));
    }
  }
  return limit;
}

/// The second number of /proc/self/statm. Without a stream, which would allocate.
std::optional<std::uint64_t> resident_bytes() {
  const FileDescriptor file(::open("/proc/self/statm", O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    return std::nullopt;
  }
  char text[128];
  const ssize_t bytes = ::read(file.get(), text, sizeof(text));
  const std::string_view line(text, static_cast<std::size_t>(std::max<ssize_t>(bytes, 0)));
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos) {
    return std::nullopt;
  }
  const auto pages = read_number(line.substr(space + 1));
  return pages ? std::optional(*pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))) : std::nullopt;
}

}  // namespace

MemoryProbe host_memory_probe() {
  return [limit = limit_bytes(), last = 0.0, next = TimePoint{}]() mutable {
    const TimePoint now = std::chrono::steady_clock::now();
    if (limit && now >= next) {
      next = now + kReadAgainAfter;
      if (const auto resident = resident_bytes()) {
        last = static_cast<double>(*resident) / static_cast<double>(*limit);
      }
    }
    return last;
  };
}

}  // namespace lockstep
