// violation(): the simulated runtime's word for "a real device would not do what you think it does".
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

namespace cuda_sim {

/// Writes what was done wrong to standard error and aborts: a program that breaks CUDA's rules has no next step.
[[noreturn]] inline void violation(const std::string& what) {
  static_cast<void>(std::fprintf(stderr, "cuda_sim: %s\n", what.c_str()));
  std::abort();
}

}  // namespace cuda_sim
