// How tests choose when the simulated runtime does what is enqueued.
#pragma once

#include <cstdint>
#include <dlfcn.h>

#include <gtest/gtest.h>

namespace cuda_sim {

enum Schedule { kEarly = 0, kLate = 1, kRandom = 2 };

inline void set_schedule(Schedule schedule, std::uint64_t seed = 1) {
  using Setter = void (*)(int, std::uint64_t);
  // Found by name: the library that is linked with at build time is the real one.
  const auto setter = reinterpret_cast<Setter>(dlsym(RTLD_DEFAULT, "cuda_sim_set_schedule"));
  ASSERT_NE(setter, nullptr) << "this runs on the real runtime: set LD_LIBRARY_PATH to the simulated one";
  setter(schedule, seed);
}

}  // namespace cuda_sim
