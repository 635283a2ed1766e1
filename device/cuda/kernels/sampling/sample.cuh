// Sampling: one block chooses the token of one row, in the steps that model::SamplerInput states.
#pragma once

#include "device/cuda/kernels/ordering.cuh"
#include "device/cuda/kernels/sampling/select.cuh"

namespace lockstep::device::cuda {

/// How weights become whole numbers: weight_rounding_addend and 2^weight_fraction_bits of the vocabulary.
struct WeightGrid {
  float rounding_addend;
  float units;
};

__device__ inline bool is_finite(float x) {
  return x > -INFINITY && x < INFINITY;
}

struct Largest {
  float value;
  int id;
};

/// The first of a row's largest numbers; -infinity where there is none.
__device__ inline Largest largest_of(const float* row, int count) {
  LOCKSTEP_SHARED(Largest, of_warps, [kWarpsMax]);
  Largest mine{-INFINITY, count};
  for (int id = static_cast<int>(threadIdx.x); id < count; id += static_cast<int>(blockDim.x)) {
    if (comes_before(row[id], id, mine.value, mine.id)) {
      mine = {row[id], id};
    }
  }
  warp_first(mine.value, mine.id);
  if (threadIdx.x % kWarpLanes == 0) {
    of_warps[threadIdx.x / kWarpLanes] = mine;
  }
  __syncthreads();
  Largest largest = of_warps[0];
  for (unsigned warp = 1; warp < blockDim.x / kWarpLanes; ++warp) {
    if (comes_before(of_warps[warp].value, of_warps[warp].id, largest.value, largest.id)) {
      largest = of_warps[warp];
    }
  }
  __syncthreads();  // the next call writes `of_warps` again
  return largest;
}

/// A finite logit stays finite whatever is done to it.
__device__ inline float within_range(float logit, float changed) {
  constexpr float kMost = 3.402823466e+38F;
  if (!is_finite(logit)) {
    return changed;
  }
  return changed < -kMost ? -kMost : (kMost < changed ? kMost : changed);
}

/// Biases of one token are added one after the other, by the thread of the first.
__device__ inline void add_biases(float* row, const LogitChange* biases, int count) {
  for (int mine = static_cast<int>(threadIdx.x); mine < count; mine += static_cast<int>(blockDim.x)) {
    const int token = biases[mine].token;
    bool is_first = true;
    for (int i = 0; i < mine; ++i) {
      is_first = is_first && biases[i].token != token;
    }
    if (is_first) {
      float logit = row[token];
      for (int i = mine; i < count; ++i) {
        logit = biases[i].token == token ? within_range(logit, logit + biases[i].value) : logit;
      }
      row[token] = logit;
    }
  }
}

__device__ inline float penalized(float logit, float output_count, const TokenChoice& choice) {
  float result = logit > 0.0F ? logit / choice.repetition_penalty : logit * choice.repetition_penalty;
  if (output_count > 0.0F) {
    result -= choice.presence_penalty + choice.frequency_penalty * output_count;
  }
  return result;
}

__device__ inline void change_logits(float* row, const TokenChoice& choice, const LogitChange* changes) {
  const int threads = static_cast<int>(blockDim.x);
  const int thread = static_cast<int>(threadIdx.x);
  add_biases(row, changes, choice.biases);
  __syncthreads();
  const LogitChange* const forbidden = changes + choice.biases;
  for (int i = thread; i < choice.forbidden; i += threads) {
    row[forbidden[i].token] = -INFINITY;
  }
  __syncthreads();
  const LogitChange* const counted = forbidden + choice.forbidden;
  for (int i = thread; i < choice.counted; i += threads) {
    float& logit = row[counted[i].token];
    logit = within_range(logit, penalized(logit, counted[i].value, choice));
  }
  __syncthreads();
}

__device__ inline int draw(const float* logits, int vocabulary, float largest, const TokenChoice& choice, const WeightGrid& grid) {
  WeighedRow row{logits, vocabulary, largest, choice.inverse_temperature, grid.rounding_addend, grid.units, false, false, 0.0F, 0, vocabulary};
  const bool cuts_k = choice.top_k > 0 && choice.top_k < vocabulary;
  const bool cuts_p = choice.top_p < 1.0F;
  if (cuts_k) {
    row.is_by_logit = true;
    row.counts = true;
    const Place last = select(row, {Goal::kUnits, static_cast<Units>(choice.top_k), 0.0});
    row.counts = false;
    row.last_key = last.key;
    row.last_id = last.id;
  }
  if (cuts_p) {
    const Place last = select(row, {Goal::kShare, 0, static_cast<double>(choice.top_p)});
    row.last_key = last.key;
    row.last_id = last.id;
  }
  row.least = choice.min_p;
  const Goal drawn{Goal::kMoreThanShare, 0, choice.noise};
  return cuts_k || cuts_p ? select(row, drawn).id : find_by_id(row, false, 0, drawn);
}

/// tokens[i] by choices[i]. Rows with changes are changed.
__global__ void __launch_bounds__(kWarpsMax* kWarpLanes)
    sample_kernel(float* logits, int vocabulary, WeightGrid grid, const TokenChoice* choices, const LogitChange* changes, std::int32_t* tokens) {
  const TokenChoice choice = choices[blockIdx.x];
  float* const row = logits + static_cast<std::int64_t>(choice.logit_row) * vocabulary;
  Largest largest = largest_of(row, vocabulary);
  if (is_finite(largest.value) && choice.biases + choice.forbidden + choice.counted > 0) {
    change_logits(row, choice, changes + choice.first_change);
    largest = largest_of(row, vocabulary);
  }
  std::int32_t token = kNoToken;
  if (is_finite(largest.value)) {
    token = choice.inverse_temperature > 0.0F ? draw(row, vocabulary, largest.value, choice, grid) : largest.id;
  }
  if (threadIdx.x == 0) {
    tokens[blockIdx.x] = token;
  }
}

}  // namespace lockstep::device::cuda
