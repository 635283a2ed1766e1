// Blocks of a kernel on the host: each thread of a block is a fiber, so that barriers and warp shuffles mean what they mean on a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace cuda_sim {

struct Extent {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
  [[nodiscard]] std::uint64_t count() const { return std::uint64_t{x} * y * z; }
};

/// What a kernel asks about the thread that it is.
struct ThreadPlace {
  Extent index;
  Extent block;
  Extent block_size;
  Extent grid_size;
};

struct Grid {
  std::string kernel;  ///< its name, for complaints
  Extent grid_size;
  Extent block_size;
  std::uint64_t seed = 0;  ///< of the order in which blocks run, and threads within a block; 0: ascending
};

/// Runs `thread` once for each thread of the grid, block after block, on the calling thread.
/// A block whose threads wait for each other in vain (a barrier or a shuffle that not all of them reach) is a violation, as is a shuffle with a lane outside.
void run_grid(const Grid& grid, const std::function<void()>& thread);

// What kernels call; only inside run_grid.
[[nodiscard]] const ThreadPlace& current_thread();
[[nodiscard]] int lane_of_current_thread();
/// __syncthreads: returns when all threads of the block that have not returned have called it.
void wait_for_block();
/// __shfl_sync: returns when all lanes of `mask` have called it with that mask; the value of `lane`.
[[nodiscard]] std::uint32_t exchange_in_warp(unsigned mask, std::uint32_t value, int lane);
/// Fills memory of a block with poison when the block's first thread comes by.
void poison_shared(void* data, std::size_t bytes);

}  // namespace cuda_sim
