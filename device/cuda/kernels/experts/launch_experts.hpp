// Launches of the kernels that bring rows to experts and back; pointers are the device's. Nothing is launched for no rows.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

#include "device/cuda/kernels/experts/expert_arguments.hpp"

namespace lockstep::device::cuda {

/// See group_choices_kernel: offsets [experts + 1], of this device's; source and place_of [choices].
[[nodiscard]] cudaError_t launch_group_choices(cudaStream_t stream, const ExpertChoices& choices, int experts, std::int32_t* offsets, std::int32_t* source,
                                               std::int32_t* place_of);
/// `places`: that there can be; `end`: that there are, on the device.
[[nodiscard]] cudaError_t launch_take_rows(cudaStream_t stream, const ExpertChoices& choices, std::int64_t places, const std::int32_t* end,
                                           const std::int32_t* source, std::int64_t hidden, BFloat16* grouped);
[[nodiscard]] cudaError_t launch_activate(cudaStream_t stream, const float* gate_up, std::int64_t places, const std::int32_t* end, std::int64_t width,
                                          BFloat16* out);
[[nodiscard]] cudaError_t launch_give_rows(cudaStream_t stream, const float* down, const std::int32_t* place_of, std::int64_t choices, std::int64_t hidden,
                                           BFloat16* returned);
[[nodiscard]] cudaError_t launch_weigh_returned(cudaStream_t stream, const ReturnedRows& rows, std::int64_t hidden, float* out);

/// positions [rows]: negative for rows that are none.
[[nodiscard]] cudaError_t launch_pack_rows(cudaStream_t stream, const ExpertChoices& own, const std::int32_t* positions, std::int64_t hidden,
                                           const PackedRows& packed);

}  // namespace lockstep::device::cuda
