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

/// Every byte, in as many chains as one vector register of each clone has room for four times over: nothing but the memory limits how many lines are asked for.
__attribute__((target_clones("avx512f", "avx2", "default"))) std::uint64_t read_all(const std::uint64_t* words, std::size_t count) {
  constexpr std::size_t kChains = 32;
  std::array<std::uint64_t, kChains> sums{};
  for (std::size_t i = 0; i + kChains <= count; i += kChains) {
    for (std::size_t j = 0; j < kChains; ++j) {
      sums[j] += words[i + j];
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
  const auto* words = static_cast<const std::uint64_t*>(mapped);
  const std::size_t part_words = part / sizeof(std::uint64_t);
  const std::size_t repeats = std::max<std::size_t>(kBytesPerRound / bytes, 1);
  // Each thread takes its own times: one that only watched could wake when all is over.
  using Clock = std::chrono::steady_clock;
  struct Times {
    Clock::time_point begin, end;
  };
  std::vector<std::array<Times, kRounds>> times(static_cast<std::size_t>(thread_count));
  std::barrier gate(thread_count);
  std::atomic<std::uint64_t> kept{0};  // so that reading has a result
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < times.size(); ++i) {
      threads.emplace_back([&, i] {
        for (Times& round : times[i]) {
          gate.arrive_and_wait();
          round.begin = Clock::now();
          for (std::size_t repeat = 0; repeat < repeats; ++repeat) {
            kept ^= read_all(words + i * part_words, part_words);
            asm volatile("" ::: "memory");  // else the compiler reads once for all repeats
          }
          round.end = Clock::now();
        }
      });
    }
  }
  double best = 0;
  for (std::size_t round = 0; round < kRounds; ++round) {
    Times whole = times.front()[round];
    for (const auto& thread : times) {
      whole = {.begin = std::min(whole.begin, thread[round].begin), .end = std::max(whole.end, thread[round].end)};
    }
    best = std::max(best, static_cast<double>(bytes * repeats) / std::chrono::duration<double>(whole.end - whole.begin).count());
  }
  fmt::print("{{\"bytes_per_s\": {:.0f}}}\n", best);
  return 0;
}
