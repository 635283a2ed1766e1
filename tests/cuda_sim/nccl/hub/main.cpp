// The hub's program: see hub.hpp.
#include "tests/cuda_sim/nccl/hub/main.hpp"

#include <csignal>
#include <unistd.h>

#include "tests/cuda_sim/nccl/hub/hub.hpp"

int main() {
  // A launcher's signals are for the ranks: the hub outlives them all, and ends with the last one's connection.
  static_cast<void>(::setsid());
  std::signal(SIGUSR1, SIG_IGN);
  std::signal(SIGTERM, SIG_IGN);
  nccl_sim::Hub hub(nccl_sim::kHubListener, nccl_sim::kHubCreator);
  hub.serve();
  return 0;
}
