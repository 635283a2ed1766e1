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

}  // namespace lockstep::device::cuda
