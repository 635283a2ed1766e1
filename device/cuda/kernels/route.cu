#include "device/cuda/kernels/launch.hpp"
#include "device/cuda/kernels/route.cuh"

namespace lockstep::device::cuda {

cudaError_t launch_route(cudaStream_t stream, const float* logits, std::int64_t rows, int expert_count, int top_k, bool normalize, std::int32_t* expert_ids,
                         float* weights) {
  if (rows > 0) {
    route_kernel<<<static_cast<unsigned>(rows), kWarpLanes, 0, stream>>>(logits, expert_count, top_k, normalize, expert_ids, weights);
  }
  return cudaGetLastError();
}

cudaError_t launch_group_choices(cudaStream_t stream, const std::int32_t* expert_ids, std::int64_t rows, int top_k, int expert_count, std::int32_t* offsets,
                                 std::int32_t* source, std::int32_t* place_of) {
  if (rows > 0) {
    const int choices = static_cast<int>(rows) * top_k;
    group_choices_kernel<<<1, kRowThreads, 0, stream>>>(expert_ids, choices, top_k, expert_count, offsets, source, place_of);
  }
  return cudaGetLastError();
}

}  // namespace lockstep::device::cuda
