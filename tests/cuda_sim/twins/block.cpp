#include "tests/cuda_sim/twins/block.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <sys/mman.h>
#include <vector>

#include <fmt/format.h>

#include "tests/cuda_sim/violation.hpp"

// Saves the callee's registers on the stack that is left, and takes those on the stack that is entered: what swapcontext does, without its system calls.
extern "C" void cuda_sim_switch_stack(void** left, void* entered);
asm(R"(
.text
.globl cuda_sim_switch_stack
.hidden cuda_sim_switch_stack
.type cuda_sim_switch_stack, @function
cuda_sim_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_sim_switch_stack, . - cuda_sim_switch_stack
)");

namespace cuda_sim {
namespace {

constexpr int kWarpLanes = 32;
constexpr std::size_t kStackBytes = std::size_t{64} << 10U;
constexpr int kSavedRegisters = 6;
/// Every byte of undefined memory: as a float it is a NaN, as an index it is -1.
constexpr int kPoison = 0xff;

enum class FiberState { kReady, kAtBarrier, kInShuffle, kDone };

struct Fiber {
  void* stack_pointer = nullptr;
  FiberState state = FiberState::kReady;
  ThreadPlace place;
};

/// One shuffle of a warp's lanes that is under way.
struct Warp {
  unsigned mask = 0;
  unsigned arrived = 0;
  std::uint32_t values[kWarpLanes] = {};     ///< of the shuffle that lanes are arriving at
  std::uint32_t published[kWarpLanes] = {};  ///< of the one that all arrived at
};

class Block {
 public:
  ~Block() {
    if (stacks_ != nullptr) {
      munmap(stacks_, stack_count_ * kStackBytes);
    }
  }
  void run(const Grid& grid, const Extent& block, const std::function<void()>& thread, std::mt19937_64* random);

  void suspend(FiberState state) {
    Fiber& fiber = fibers_[running_];
    fiber.state = state;
    cuda_sim_switch_stack(&fiber.stack_pointer, runner_);
  }
  [[nodiscard]] const ThreadPlace& place() const { return fibers_[running_].place; }
  [[nodiscard]] int lane() const { return static_cast<int>(running_ % kWarpLanes); }
  [[nodiscard]] std::uint32_t exchange(unsigned mask, std::uint32_t value, int lane);
  void poison(void* data, std::size_t bytes);

 private:
  static void enter();
  void prepare(const Grid& grid, const Extent& block);
  void prepare_stack(std::size_t index);
  bool run_ready();
  void release(FiberState state, std::size_t begin, std::size_t end);
  [[noreturn]] void stuck() const;

  const Grid* grid_ = nullptr;
  const std::function<void()>* thread_ = nullptr;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::vector<std::size_t> order_;
  std::vector<void*> poisoned_;
  std::size_t running_ = 0;
  std::size_t done_ = 0;
  void* runner_ = nullptr;  ///< the stack pointer of who runs the block
  std::byte* stacks_ = nullptr;
  std::size_t stack_count_ = 0;
};

/// The block that this thread of the host runs; its stacks are used again by the next one.
Block& current_block() {
  static thread_local Block block;
  return block;
}

void Block::enter() {
  Block& block = current_block();
  (*block.thread_)();
  ++block.done_;
  block.suspend(FiberState::kDone);
  std::abort();  // nobody resumes it
}

void Block::prepare_stack(std::size_t index) {
  auto* const top = reinterpret_cast<void**>(stacks_ + (index + 1) * kStackBytes);
  // As after a call of `enter`: its return address (none) lies 8 bytes below a multiple of 16.
  void** at = top - 1;
  *at = nullptr;
  *--at = reinterpret_cast<void*>(&Block::enter);
  for (int i = 0; i < kSavedRegisters; ++i) {
    *--at = nullptr;
  }
  fibers_[index].stack_pointer = at;
}

void Block::prepare(const Grid& grid, const Extent& block) {
  const std::size_t count = grid.block_size.count();
  if (stack_count_ < count) {
    if (stacks_ != nullptr) {
      munmap(stacks_, stack_count_ * kStackBytes);
    }
    void* const mapped = mmap(nullptr, count * kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
      violation(fmt::format("kernel {}: no memory for the stacks of {} threads", grid.kernel, count));
    }
    stacks_ = static_cast<std::byte*>(mapped);
    stack_count_ = count;
  }
  fibers_.assign(count, {});
  warps_.assign((count + kWarpLanes - 1) / kWarpLanes, {});
  poisoned_.clear();
  done_ = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto [x, y, z] = grid.block_size;
    const auto at = static_cast<unsigned>(i);
    static_cast<void>(z);
    fibers_[i].place = {.index = {at % x, at / x % y, at / x / y}, .block = block, .block_size = grid.block_size, .grid_size = grid.grid_size};
    prepare_stack(i);
  }
}

void Block::run(const Grid& grid, const Extent& block, const std::function<void()>& thread, std::mt19937_64* random) {
  grid_ = &grid;
  thread_ = &thread;
  prepare(grid, block);
  order_.resize(fibers_.size());
  std::iota(order_.begin(), order_.end(), 0);
  if (random != nullptr) {
    std::ranges::shuffle(order_, *random);
  }
  while (done_ < fibers_.size()) {
    if (run_ready()) {
      continue;
    }
    const auto waiting = std::ranges::count(fibers_, FiberState::kAtBarrier, &Fiber::state);
    if (static_cast<std::size_t>(waiting) + done_ < fibers_.size()) {
      stuck();
    }
    release(FiberState::kAtBarrier, 0, fibers_.size());
  }
}

bool Block::run_ready() {
  bool any = false;
  for (const std::size_t index : order_) {
    if (fibers_[index].state == FiberState::kReady) {
      any = true;
      running_ = index;
      cuda_sim_switch_stack(&runner_, fibers_[index].stack_pointer);
    }
  }
  return any;
}

void Block::release(FiberState state, std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; ++i) {
    if (fibers_[i].state == state) {
      fibers_[i].state = FiberState::kReady;
    }
  }
}

void Block::stuck() const {
  const auto count = [this](FiberState state) { return std::ranges::count(fibers_, state, &Fiber::state); };
  const Extent at = fibers_.front().place.block;
  violation(fmt::format("kernel {}, block ({}, {}, {}): {} threads are at __syncthreads, {} in a warp shuffle and {} have returned: they wait in vain",
                        grid_->kernel, at.x, at.y, at.z, count(FiberState::kAtBarrier), count(FiberState::kInShuffle), done_));
}

std::uint32_t Block::exchange(unsigned mask, std::uint32_t value, int lane) {
  const std::size_t first = running_ / kWarpLanes * kWarpLanes;
  const std::size_t end = std::min(first + kWarpLanes, fibers_.size());
  const unsigned here = end - first == kWarpLanes ? ~0U : (1U << (end - first)) - 1U;
  const unsigned own = 1U << static_cast<unsigned>(this->lane());
  Warp& warp = warps_[running_ / kWarpLanes];
  if ((mask & own) == 0 || (mask & ~here) != 0 || lane < 0 || lane >= kWarpLanes || (mask & (1U << static_cast<unsigned>(lane))) == 0) {
    violation(
        fmt::format("kernel {}: lane {} shuffles from lane {} with mask {:#x} in a warp of lanes {:#x}: who calls, who is read and all of the mask have to "
                    "be in the warp",
                    grid_->kernel, this->lane(), lane, mask, here));
  }
  if (warp.arrived != 0 && warp.mask != mask) {
    violation(fmt::format("kernel {}: lanes of one warp shuffle with masks {:#x} and {:#x}", grid_->kernel, warp.mask, mask));
  }
  warp.mask = mask;
  warp.arrived |= own;
  warp.values[this->lane()] = value;
  if (warp.arrived == mask) {
    std::ranges::copy(warp.values, warp.published);
    warp.arrived = 0;
    release(FiberState::kInShuffle, first, end);
  } else {
    suspend(FiberState::kInShuffle);
  }
  return warp.published[lane];
}

void Block::poison(void* data, std::size_t bytes) {
  if (std::ranges::find(poisoned_, data) == poisoned_.end()) {
    poisoned_.push_back(data);
    std::memset(data, kPoison, bytes);
  }
}

}  // namespace

void run_grid(const Grid& grid, const std::function<void()>& thread) {
  std::mt19937_64 random(grid.seed);
  std::vector<std::uint64_t> blocks(grid.grid_size.count());
  std::iota(blocks.begin(), blocks.end(), 0);
  if (grid.seed != 0) {
    std::ranges::shuffle(blocks, random);
  }
  for (const std::uint64_t index : blocks) {
    const std::uint64_t x = grid.grid_size.x;
    const std::uint64_t y = grid.grid_size.y;
    const Extent block{static_cast<unsigned>(index % x), static_cast<unsigned>(index / x % y), static_cast<unsigned>(index / x / y)};
    current_block().run(grid, block, thread, grid.seed != 0 ? &random : nullptr);
  }
}

const ThreadPlace& current_thread() {
  return current_block().place();
}

int lane_of_current_thread() {
  return current_block().lane();
}

void wait_for_block() {
  current_block().suspend(FiberState::kAtBarrier);
}

std::uint32_t exchange_in_warp(unsigned mask, std::uint32_t value, int lane) {
  return current_block().exchange(mask, value, lane);
}

void poison_shared(void* data, std::size_t bytes) {
  current_block().poison(data, bytes);
}

}  // namespace cuda_sim
