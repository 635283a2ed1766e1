#include "device/cuda/kernels/launch.hpp"
#include "device/cuda/kernels/sampling/sample.cuh"

namespace lockstep::device::cuda {

namespace {

/// A row is read up to thirteen times by one block: where it is long by as many threads as there can be, to have enough reads under way.
constexpr std::int64_t kLongVocabulary = 16384;
constexpr unsigned kLongRowThreads = 1024;

}  // namespace

cudaError_t launch_sample(cudaStream_t stream, const TokenChoices& choices, std::int32_t* tokens) {
  if (choices.count > 0) {
    const WeightGrid grid{weight_rounding_addend(choices.vocabulary),
                          static_cast<float>(std::int64_t{1} << static_cast<unsigned>(weight_fraction_bits(choices.vocabulary)))};
    const unsigned threads = choices.vocabulary < kLongVocabulary ? kRowThreads : kLongRowThreads;
    sample_kernel<<<static_cast<unsigned>(choices.count), threads, 0, stream>>>(choices.logits, static_cast<int>(choices.vocabulary), grid, choices.choices,
                                                                                choices.changes, tokens);
  }
  return cudaGetLastError();
}

}  // namespace lockstep::device::cuda
