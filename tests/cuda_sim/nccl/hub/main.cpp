// The hub's program: see hub.hpp.
#include "tests/cuda_sim/nccl/hub/main.hpp"

#include "tests/cuda_sim/nccl/hub/hub.hpp"

int main() {
  nccl_sim::Hub hub(nccl_sim::kHubListener, nccl_sim::kHubCreator);
  hub.serve();
  return 0;
}
