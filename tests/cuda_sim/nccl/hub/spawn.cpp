#include "tests/cuda_sim/nccl/hub/spawn.hpp"

#include <array>
#include <cstddef>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <filesystem>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <fmt/format.h>

#include "tests/cuda_sim/nccl/calls.hpp"
#include "tests/cuda_sim/nccl/hub/main.hpp"
#include "tests/cuda_sim/violation.hpp"

namespace nccl_sim {
namespace {

int listen_at(const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());  // the first byte stays 0: an abstract name, which ends with the socket
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  if (listener < 0 || ::bind(listener, reinterpret_cast<const sockaddr*>(&address), bytes) != 0 || ::listen(listener, 64) != 0) {
    cuda_sim::violation("the hub of simulated NCCL has no socket");
  }
  return listener;
}

/// The program lies beside this library.
std::string program() {
  Dl_info self{};
  dladdr(reinterpret_cast<void*>(&hub_address), &self);
  return (std::filesystem::path(self.dli_fname).parent_path() / "nccl_sim_hub").string();
}

std::string start() {
  std::string name = fmt::format("nccl-sim-{}-{:016x}", ::getpid(), random_key());
  const int listener = listen_at(name);
  std::array<int, 2> alive{};  // the hub reads the end of file when this process, which keeps the other end, is gone
  if (::pipe2(alive.data(), O_CLOEXEC) != 0) {
    cuda_sim::violation("the hub of simulated NCCL has no pipe");
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, listener, kHubListener);
  posix_spawn_file_actions_adddup2(&actions, alive[0], kHubCreator);
  const std::string path = program();
  std::string first = path;
  std::array<char*, 2> arguments{first.data(), nullptr};
  pid_t process = 0;
  if (::posix_spawn(&process, path.c_str(), &actions, nullptr, arguments.data(), environ) != 0) {
    cuda_sim::violation("cannot start " + path);
  }
  posix_spawn_file_actions_destroy(&actions);
  ::close(listener);
  ::close(alive[0]);
  return name;
}

}  // namespace

const std::string& hub_address() {
  static const std::string kAddress = start();
  return kAddress;
}

}  // namespace nccl_sim
