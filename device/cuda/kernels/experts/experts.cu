#include "device/cuda/kernels/experts/experts.cuh"
#include "device/cuda/kernels/experts/launch_experts.hpp"

namespace lockstep::device::cuda {

cudaError_t launch_group_choices(cudaStream_t stream, const ExpertChoices& choices, int experts, std::int32_t* offsets, std::int32_t* source,
                                 std::int32_t* place_of) {
  if (choices.rows > 0) {
    group_choices_kernel<<<static_cast<unsigned>(experts) + 1, kWarpLanes, 0, stream>>>(choices, offsets, source, place_of);
  }
  return cudaGetLastError();
}

cudaError_t launch_take_rows(cudaStream_t stream, const ExpertChoices& choices, std::int64_t places, const std::int32_t* end, const std::int32_t* source,
                             std::int64_t hidden, BFloat16* grouped) {
  if (places > 0) {
    take_rows_kernel<<<static_cast<unsigned>(places), kRowThreads, 0, stream>>>(choices, end, source, hidden, grouped);
  }
  return cudaGetLastError();
}

cudaError_t launch_activate(cudaStream_t stream, const float* gate_up, std::int64_t places, const std::int32_t* end, std::int64_t width, BFloat16* out) {
  if (places > 0) {
    activate_kernel<<<static_cast<unsigned>(places), kRowThreads, 0, stream>>>(gate_up, end, width, out);
  }
  return cudaGetLastError();
}

cudaError_t launch_give_rows(cudaStream_t stream, const float* down, const std::int32_t* place_of, std::int64_t choices, std::int64_t hidden,
                             BFloat16* returned) {
  if (choices > 0) {
    give_rows_kernel<<<static_cast<unsigned>(choices), kRowThreads, 0, stream>>>(down, place_of, hidden, returned);
  }
  return cudaGetLastError();
}

cudaError_t launch_weigh_returned(cudaStream_t stream, const ReturnedRows& rows, std::int64_t hidden, float* out) {
  if (rows.rows > 0) {
    weigh_returned_kernel<<<static_cast<unsigned>(rows.rows), kRowThreads, 0, stream>>>(rows, hidden, out);
  }
  return cudaGetLastError();
}

cudaError_t launch_pack_rows(cudaStream_t stream, const ExpertChoices& own, const std::int32_t* positions, std::int64_t hidden, const PackedRows& packed) {
  if (own.rows > 0) {
    pack_rows_kernel<<<static_cast<unsigned>(own.rows), kRowThreads, 0, stream>>>(own.x, own.expert_ids, positions, own.top_k, hidden, packed.rows,
                                                                                  packed.expert_ids);
  }
  return cudaGetLastError();
}

}  // namespace lockstep::device::cuda
