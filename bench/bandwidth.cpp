// How fast this machine reads memory: bench_bandwidth MEGABYTES THREADS; prints JSON. Each thread reads its own part of one stretch again and again, in order,
// as a step reads its weights; a stretch that fits a cache is read from there. On huge pages where the kernel has them.
#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <sys/mman.h>
#include <thread>
#include <vector>

#include <fmt/format.h>

namespace {

constexpr int kRounds = 12;
constexpr std::size_t kBytesPerRound = std::size_t{256} << 20U;

/// One word of each cache line, in eight chains: the line is read for it, and nothing but the memory limits how many are asked for. (Vectors wider than what
/// the compiler was told of went through the stack here, and halved the result.)
std::uint64_t read_all(const std::byte* data, std::size_t bytes) {
  constexpr std::size_t kCacheLine = 64;
  constexpr std::size_t kChains = 8;
  std::array<std::uint64_t, kChains> sums{};
  for (std::size_t i = 0; i + kChains * kCacheLine <= bytes; i += kChains * kCacheLine) {
    for (std::size_t j = 0; j < kChains; ++j) {
      std::uint64_t word = 0;
      std::memcpy(&word, data + i + j * kCacheLine, sizeof word);
      sums[j] += word;
    }
  }
  return std::accumulate(sums.begin(), sums.end(), std::uint64_t{0});
}

}  // namespace

int main(int argc, char** argv) {
  const double megabytes = argc == 3 ? std::strtod(argv[1], nullptr) : 0;
  const int thread_count = argc == 3 ? std::atoi(argv[2]) : 0;
  if (megabytes <= 0 || thread_count < 1) {
    fmt::print(stderr, "usage: bench_bandwidth MEGABYTES THREADS\n");
    return 2;
  }
  const std::size_t part = std::max<std::size_t>(static_cast<std::size_t>(megabytes * 1e6) / static_cast<std::size_t>(thread_count) / 4096, 1) * 4096;
  const std::size_t bytes = part * static_cast<std::size_t>(thread_count);
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    fmt::print(stderr, "bench_bandwidth: no memory of {} bytes\n", bytes);
    return 1;
  }
  madvise(mapped, bytes, MADV_HUGEPAGE);
  std::memset(mapped, 1, bytes);
  const auto* data = static_cast<const std::byte*>(mapped);
  const std::size_t repeats = std::max<std::size_t>(kBytesPerRound / bytes, 1);
  std::barrier gate(thread_count + 1);
  std::atomic<std::uint64_t> kept{0};  // so that no reading is optimized away
  std::vector<std::jthread> threads;
  for (int i = 0; i < thread_count; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < kRounds; ++round) {
        gate.arrive_and_wait();
        for (std::size_t repeat = 0; repeat < repeats; ++repeat) {
          kept ^= read_all(data + static_cast<std::size_t>(i) * part, part) + repeat;
        }
        gate.arrive_and_wait();
      }
    });
  }
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    gate.arrive_and_wait();
    const auto begin = std::chrono::steady_clock::now();
    gate.arrive_and_wait();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    best = std::max(best, static_cast<double>(bytes * repeats) / seconds);
  }
  fmt::print("{{\"bytes_per_s\": {:.0f}}}\n", best);
  return 0;
}
