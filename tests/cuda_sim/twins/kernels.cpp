// The twins of all kernels: their .cuh files, compiled by the host's compiler.
#include <algorithm>
#include <array>
#include <functional>
#include <string_view>

// CUDA's language first.
// clang-format off
#include "tests/cuda_sim/twins/language.hpp"

// Then what has a twin by hand.
#include "tests/cuda_sim/twins/async_copies.hpp"
#include "tests/cuda_sim/twins/tile_mma.hpp"

#include "device/cuda/kernels/attention.cuh"
#include "device/cuda/kernels/experts/experts.cuh"
#include "device/cuda/kernels/product/product.cuh"
#include "device/cuda/kernels/route.cuh"
#include "device/cuda/kernels/rows.cuh"
#include "device/cuda/kernels/sampling/sample.cuh"
// clang-format on
#include "tests/cuda_sim/twins/twin.hpp"

namespace {

using namespace lockstep::device::cuda;  // a list of kernels

const auto& twins() {
  static const std::array kTwins{cuda_sim::twin_of<activate_kernel>(),        cuda_sim::twin_of<add_kernel>(),
                                 cuda_sim::twin_of<embed_kernel>(),           cuda_sim::twin_of<gather_floats_kernel>(),
                                 cuda_sim::twin_of<gather_halves_kernel>(),   cuda_sim::twin_of<give_rows_kernel>(),
                                 cuda_sim::twin_of<group_choices_kernel>(),   cuda_sim::twin_of<short_grouped_matmul_kernel>(),
                                 cuda_sim::twin_of<short_matmul_kernel>(),    cuda_sim::twin_of<tall_grouped_matmul_kernel>(),
                                 cuda_sim::twin_of<tall_matmul_kernel>(),     cuda_sim::twin_of<narrow_kernel>(),
                                 cuda_sim::twin_of<norm_rope_store_kernel>(), cuda_sim::twin_of<pack_rows_kernel>(),
                                 cuda_sim::twin_of<paged_attention_kernel>(), cuda_sim::twin_of<rms_norm_kernel>(),
                                 cuda_sim::twin_of<route_kernel>(),           cuda_sim::twin_of<silu_mul_kernel>(),
                                 cuda_sim::twin_of<sample_kernel>(),          cuda_sim::twin_of<take_rows_kernel>(),
                                 cuda_sim::twin_of<weigh_and_sum_kernel>(),   cuda_sim::twin_of<weigh_returned_kernel>()};
  return kTwins;
}

}  // namespace

/// Binds the kernel's twin to its arguments; false: there is none of this name.
extern "C" bool cuda_sim_bind_twin(const char* name, void** arguments, std::function<void()>* thread) {
  const auto found = std::ranges::find(twins(), std::string_view(name), &cuda_sim::Twin::name);
  if (found == twins().end()) {
    return false;
  }
  *thread = found->bind(arguments);
  return true;
}

extern "C" void cuda_sim_run_grid(const cuda_sim::Grid* grid, const std::function<void()>* thread) {
  cuda_sim::run_grid(*grid, *thread);
}
