#include "tests/cuda_sim/runtime/memory.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tests/cuda_sim/runtime/settings.hpp"
#include "tests/cuda_sim/violation.hpp"

namespace cuda_sim {
namespace {

constexpr int kPoison = 0xff;
constexpr std::size_t kPage = 4096;
/// What cudaMalloc promises: "suitably aligned for any kind of variable", 256 bytes on all devices.
constexpr std::size_t kAlignment = 256;

enum class State { kReserved, kLive, kFreed };

struct Allocation {
  std::byte* data = nullptr;
  std::size_t bytes = 0;
  std::byte* pages = nullptr;  ///< `data` ends at their end, so that what runs over it runs into the guard page behind
  std::size_t page_bytes = 0;
  State state = State::kReserved;
};

struct Memory {
  std::mutex mutex;
  std::map<std::uintptr_t, Allocation> device;  ///< by `data`; freed ones stay, so that a late use of one is known for what it is
  std::size_t device_bytes = 0;
  std::size_t device_bytes_max = 0;
  std::map<std::uintptr_t, std::size_t> page_locked;
  int accesses = 0;  ///< streams that run something now
};

Memory& memory();

/// What the thread runs as a stream; null: it is the host's.
const char*& running() {
  static thread_local const char* label = nullptr;
  return label;
}

/// A stream or the host touched what it must not: says what, and ends the process. Only what a handler may do, as far as possible: the process is lost anyway.
void on_fault(int signal, siginfo_t* info, void* /*context*/) {
  const auto at = reinterpret_cast<std::uintptr_t>(info->si_addr);
  Memory& all = memory();
  auto next = all.device.upper_bound(at + kPage);
  for (int i = 0; i < 3 && next != all.device.begin(); ++i) {
    const Allocation& near = (--next)->second;
    const auto begin = reinterpret_cast<std::uintptr_t>(near.pages);
    if (at < begin || at >= begin + near.page_bytes + kPage) {
      continue;
    }
    const char* why = "touched memory of the device, which only streams may";
    if (at >= begin + near.page_bytes) {
      why = "ran over the end of an allocation";
    } else if (near.state == State::kFreed) {
      why = "used memory after it was freed";
    } else if (near.state == State::kReserved) {
      why = "used memory before its allocation, in the order of streams and events";
    }
    const auto offset = static_cast<long long>(at) - static_cast<long long>(reinterpret_cast<std::uintptr_t>(near.data));
    violation(fmt::format("{} {} (byte {} of an allocation of {})", running() == nullptr ? "the host" : running(), why, offset, near.bytes));
  }
  std::signal(signal, SIG_DFL);  // not ours: a crash like any other
}

Memory& memory() {
  static Memory* const all = [] {  // NOLINT: never destroyed, streams may outlive main
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, nullptr);
    return new Memory;
  }();
  return *all;
}

/// The processor's key of the device's memory, which each thread can lock and unlock for itself in some nanoseconds; -1 where it has none: then pages are
/// opened and closed for all threads together.      Source  pkeys(7)
int memory_key() {
  static const int kKey = pkey_alloc(0, PKEY_DISABLE_ACCESS);
  return kKey;
}

void protect(const Allocation& allocation, int protection) {
  const bool locked = memory_key() >= 0 && protection != PROT_NONE;
  const int failed =
      locked ? pkey_mprotect(allocation.pages, allocation.page_bytes, protection, memory_key()) : mprotect(allocation.pages, allocation.page_bytes, protection);
  if (failed != 0) {
    violation("mprotect failed: too many mappings");
  }
}

void protect_all_live(Memory& all, int protection) {
  for (const auto& [at, allocation] : all.device) {
    if (allocation.state == State::kLive) {
      protect(allocation, protection);
    }
  }
}

/// The allocation that `at` is within; null: none.
template <typename Map>
auto find_within(Map& map, std::uintptr_t at) {
  auto next = map.upper_bound(at);
  return next == map.begin() ? map.end() : std::prev(next);
}

}  // namespace

DeviceAccess::DeviceAccess(const std::string& label) : outer_(std::exchange(running(), label.c_str())) {
  Memory& all = memory();
  if (memory_key() >= 0) {
    pkey_set(memory_key(), 0);
    return;
  }
  const std::scoped_lock lock(all.mutex);
  if (all.accesses++ == 0) {
    protect_all_live(all, PROT_READ | PROT_WRITE);
  }
}

DeviceAccess::~DeviceAccess() {
  Memory& all = memory();
  running() = outer_;
  if (memory_key() >= 0) {
    pkey_set(memory_key(), outer_ == nullptr ? PKEY_DISABLE_ACCESS : 0U);
    return;
  }
  const std::scoped_lock lock(all.mutex);
  if (--all.accesses == 0) {
    protect_all_live(all, PROT_NONE);
  }
}

void* reserve_device_memory(std::size_t bytes) {
  Memory& all = memory();
  const std::scoped_lock lock(all.mutex);
  if (bytes > settings().memory_bytes - all.device_bytes) {
    return nullptr;
  }
  const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t page_bytes = (rounded + kPage - 1) / kPage * kPage;
  void* const mapped = mmap(nullptr, page_bytes + kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    return nullptr;
  }
  all.device_bytes += bytes;
  all.device_bytes_max = std::max(all.device_bytes_max, all.device_bytes);
  auto* const pages = static_cast<std::byte*>(mapped);
  std::byte* const data = pages + page_bytes - rounded;
  all.device[reinterpret_cast<std::uintptr_t>(data)] = {.data = data, .bytes = bytes, .pages = pages, .page_bytes = page_bytes};
  return data;
}

DeviceBytes device_bytes() {
  Memory& all = memory();
  const std::scoped_lock lock(all.mutex);
  return {.used = all.device_bytes, .used_max = all.device_bytes_max};
}

void begin_device_memory(void* data) {
  Memory& all = memory();
  const std::scoped_lock lock(all.mutex);
  Allocation& allocation = all.device.at(reinterpret_cast<std::uintptr_t>(data));
  allocation.state = State::kLive;
  protect(allocation, PROT_READ | PROT_WRITE);
  std::memset(allocation.pages, kPoison, allocation.page_bytes);
}

void end_device_memory(void* data) {
  Memory& all = memory();
  const std::scoped_lock lock(all.mutex);
  Allocation& allocation = all.device.at(reinterpret_cast<std::uintptr_t>(data));
  if (allocation.state == State::kFreed) {
    violation("memory was freed twice");
  }
  allocation.state = State::kFreed;
  all.device_bytes -= allocation.bytes;
  protect(allocation, PROT_NONE);
  madvise(allocation.pages, allocation.page_bytes, MADV_DONTNEED);  // the addresses stay taken, the memory does not
}

bool is_device_memory(const void* data) {
  Memory& all = memory();
  const std::scoped_lock lock(all.mutex);
  const auto found = all.device.find(reinterpret_cast<std::uintptr_t>(data));
  return found != all.device.end() && found->second.state != State::kFreed;
}

void check_device_range(const void* data, std::size_t bytes, const char* call) {
  Memory& all = memory();
  const std::scoped_lock lock(all.mutex);
  const auto at = reinterpret_cast<std::uintptr_t>(data);
  const auto found = find_within(all.device, at);
  if (found == all.device.end() || at + bytes > found->first + found->second.bytes) {
    violation(fmt::format("{}: {} bytes at {} are not within one allocation of the device", call, bytes, data));
  }
  if (found->second.state == State::kFreed) {
    violation(fmt::format("{} used memory after it was freed", call));
  }
}

void* allocate_page_locked(std::size_t bytes) {
  const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  void* const data = std::aligned_alloc(kAlignment, rounded);
  if (data != nullptr) {
    std::memset(data, kPoison, rounded);
    Memory& all = memory();
    const std::scoped_lock lock(all.mutex);
    all.page_locked[reinterpret_cast<std::uintptr_t>(data)] = rounded;
  }
  return data;
}

bool free_page_locked(void* data) {
  Memory& all = memory();
  {
    const std::scoped_lock lock(all.mutex);
    const auto found = all.page_locked.find(reinterpret_cast<std::uintptr_t>(data));
    if (found == all.page_locked.end()) {
      return false;
    }
    poison(data, found->second);
    all.page_locked.erase(found);
  }
  std::free(data);
  return true;
}

void check_page_locked_range(const void* data, std::size_t bytes, const char* call) {
  Memory& all = memory();
  const std::scoped_lock lock(all.mutex);
  const auto at = reinterpret_cast<std::uintptr_t>(data);
  const auto found = find_within(all.page_locked, at);
  if (found == all.page_locked.end() || at + bytes > found->first + found->second) {
    violation(fmt::format("{}: {} bytes at {} are not page-locked memory of the host, or no longer: a copy would wait for the device", call, bytes, data));
  }
}

std::uint64_t checksum(const void* data, std::size_t bytes) {
  std::uint64_t sum = 14695981039346656037ULL;  // FNV-1a
  const auto* const from = static_cast<const unsigned char*>(data);
  for (std::size_t i = 0; i < bytes; ++i) {
    sum = (sum ^ from[i]) * 1099511628211ULL;
  }
  return sum;
}

void poison(void* data, std::size_t bytes) {
  std::memset(data, kPoison, bytes);
}

}  // namespace cuda_sim
