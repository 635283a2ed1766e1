// Which token of a row comes at a given part of all weights, in the order of weights or of ids. One block a row, all of its threads call these functions.
#pragma once

#include "device/cuda/kernels/sampling/weigh.cuh"

namespace lockstep::device::cuda {

/// `units` of another lane.
__device__ inline Units shuffled(Units units, int lane) {
  const std::uint32_t low = __shfl_sync(kAllLanes, static_cast<std::uint32_t>(units), lane);
  const std::uint32_t high = __shfl_sync(kAllLanes, static_cast<std::uint32_t>(units >> 32U), lane);
  return (static_cast<Units>(high) << 32U) | low;
}

struct Scanned {
  Units before;  ///< of the threads before this one
  Units total;   ///< of all
};

__device__ inline Scanned block_scan(Units units) {
  LOCKSTEP_SHARED(Units, of_warps, [kWarpsMax]);
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int warps = static_cast<int>(blockDim.x) / kWarpLanes;
  Units sum = units;  // of this lane and those before it
  for (int distance = 1; distance < kWarpLanes; distance *= 2) {
    const Units other = shuffled(sum, lane >= distance ? lane - distance : lane);
    sum += lane >= distance ? other : 0;
  }
  if (lane == kWarpLanes - 1) {
    of_warps[warp] = sum;
  }
  __syncthreads();
  Scanned scanned{sum - units, 0};
  for (int i = 0; i < warps; ++i) {
    scanned.before += i < warp ? of_warps[i] : 0;
    scanned.total += of_warps[i];
  }
  __syncthreads();  // the next call writes `of_warps` again
  return scanned;
}

/// The first token, in the order of ids, with which the goal is reached; only tokens with `key` where `has_key` says so. Narrows down: each warp adds up a part
/// of what is left, and that which reaches the goal is what is left then.
__device__ inline int find_by_id(const WeighedRow& row, bool has_key, std::uint32_t key, const Goal& goal) {
  LOCKSTEP_SHARED(Units, of_parts, [kWarpsMax]);
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int warps = static_cast<int>(blockDim.x) / kWarpLanes;
  int begin = 0;
  int end = row.count;
  Units wanted = 0;
  while (true) {
    const int length = (end - begin + warps - 1) / warps;
    const int from = begin + warp * length;
    const int to = from + length < end ? from + length : end;
    Units sum = 0;
    for (int id = from + lane; id < to; id += kWarpLanes) {
      const Weighed weighed = weigh(row, id);
      sum += !has_key || weighed.key == key ? weighed.units : 0;
    }
    for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
      sum += shuffled(sum, lane ^ distance);
    }
    if (lane == 0) {
      of_parts[warp] = sum;
    }
    __syncthreads();
    if (begin == 0 && end == row.count) {
      Units total = 0;
      for (int i = 0; i < warps; ++i) {
        total += of_parts[i];
      }
      wanted = units_wanted(goal, total);
    }
    int part = 0;
    for (; part < warps - 1 && of_parts[part] < wanted; ++part) {
      wanted -= of_parts[part];
    }
    __syncthreads();  // `of_parts` is written again
    begin += part * length;
    end = begin + length < end ? begin + length : end;
    if (length == 1) {
      return begin < row.count ? begin : row.count - 1;
    }
  }
}

constexpr int kDigitsMax = 2048;  // of a key's digits, which have 11, 11 and 10 bits

/// Adds to a number of two words in shared memory. Devices have an instruction for one word; for two they would try again and again.
__device__ inline void add_shared(unsigned* low, unsigned* high, Units units) {
  const auto mine = static_cast<unsigned>(units);
  const unsigned before = atomicAdd(low, mine);
  const unsigned rest = static_cast<unsigned>(units >> 32U) + (before + mine < before ? 1U : 0U);
  if (rest != 0) {
    atomicAdd(high, rest);
  }
}

/// The first token, in the row's order, with which the goal is reached: its key digit by digit, then its id among tokens of that key.
__device__ inline Place select(const WeighedRow& row, const Goal& goal) {
  LOCKSTEP_SHARED(unsigned, low, [kDigitsMax]);
  LOCKSTEP_SHARED(unsigned, high, [kDigitsMax]);
  LOCKSTEP_SHARED(int, picked_digit, [1]);
  LOCKSTEP_SHARED(Units, picked_rest, [1]);
  const int threads = static_cast<int>(blockDim.x);
  const int thread = static_cast<int>(threadIdx.x);
  const int mine = kDigitsMax / threads;  // each thread has a run of digits, the first one the largest
  Units wanted = 0;
  std::uint32_t prefix = 0;
  for (int bits_left = 32; bits_left > 0;) {
    const int bits = bits_left > 10 ? 11 : 10;
    const int shift = bits_left - bits;
    for (int digit = thread; digit < kDigitsMax; digit += threads) {
      low[digit] = 0;
      high[digit] = 0;
    }
    if (thread == 0) {
      picked_digit[0] = 0;
      picked_rest[0] = 0;
    }
    __syncthreads();
    for (int id = thread; id < row.count; id += threads) {
      const Weighed weighed = weigh(row, id);
      if (weighed.units > 0 && static_cast<std::uint64_t>(weighed.key) >> static_cast<unsigned>(bits_left) == prefix) {
        const unsigned digit = (weighed.key >> static_cast<unsigned>(shift)) & ((1U << static_cast<unsigned>(bits)) - 1U);
        add_shared(&low[digit], &high[digit], weighed.units);
      }
    }
    __syncthreads();
    const int first = kDigitsMax - 1 - thread * mine;
    Units own = 0;
    for (int digit = first; digit > first - mine; --digit) {
      own += (static_cast<Units>(high[digit]) << 32U) | low[digit];
    }
    const Scanned scanned = block_scan(own);
    if (bits_left == 32) {
      wanted = units_wanted(goal, scanned.total);
    }
    if (scanned.before < wanted && wanted <= scanned.before + own) {
      Units rest = wanted - scanned.before;
      int digit = first;
      for (Units units = (static_cast<Units>(high[digit]) << 32U) | low[digit]; units < rest; units = (static_cast<Units>(high[digit]) << 32U) | low[digit]) {
        rest -= units;
        --digit;
      }
      picked_digit[0] = digit;
      picked_rest[0] = rest;
    }
    __syncthreads();
    prefix = (prefix << static_cast<unsigned>(bits)) | static_cast<std::uint32_t>(picked_digit[0]);
    wanted = picked_rest[0];
    bits_left = shift;
    __syncthreads();  // both are written again
  }
  return {prefix, find_by_id(row, true, prefix, {Goal::kUnits, wanted, 0.0})};
}

}  // namespace lockstep::device::cuda
