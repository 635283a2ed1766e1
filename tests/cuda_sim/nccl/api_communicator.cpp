// Communicators and errors.
// Source  NCCL 2.28 user guide: "Communicator Creation and Management Functions", "Creating a Communicator", "Error handling and communicator abort", "Fault
// Tolerance"; nccl.h of 2.28.9.
#include <algorithm>
#include <cstring>
#include <nccl.h>
#include <string>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>

#include "tests/cuda_sim/nccl/handles.hpp"
#include "tests/cuda_sim/nccl/hub/spawn.hpp"
#include "tests/cuda_sim/nccl/launch.hpp"
#include "tests/cuda_sim/violation.hpp"

namespace nccl_sim {
namespace {

constexpr unsigned kConfigMagic = 0xcafebeef;

struct Handles {
  std::mutex mutex;
  std::vector<std::unique_ptr<ncclComm>> all;  ///< ended ones stay, so that a late use of one is known for what it is
};
Handles& handles() {
  static auto* const all = new Handles;  // NOLINT: never destroyed, streams may outlive main
  return *all;
}

/// "<the hub's address>/<the communicator's key>".
bool parse(const ncclUniqueId& id, std::string& address, std::uint64_t& key) {
  const std::string text(id.internal, ::strnlen(id.internal, sizeof id.internal));
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos) {
    return false;
  }
  address = text.substr(0, slash);
  key = std::strtoull(text.c_str() + slash + 1, nullptr, 10);
  return true;
}

bool is_valid(const ncclConfig_t* config) {
  return config == nullptr || (config->magic == kConfigMagic && config->size == sizeof(ncclConfig_t));
}

bool is_blocking(const ncclConfig_t* config) {
  return config == nullptr || config->blocking != 0;
}

/// NCCL's own check of a non-blocking communicator: "Attempt to use communicator before the previous operation returned ncclSuccess".
ncclResult_t refuse_in_progress(Communicator& communicator) {
  communicator.note("Attempt to use communicator before the previous operation returned ncclSuccess");
  return ncclInvalidArgument;
}

}  // namespace

ncclComm_t add_handle(std::shared_ptr<Communicator> communicator) {
  Handles& all = handles();
  const std::scoped_lock lock(all.mutex);
  all.all.push_back(std::make_unique<ncclComm>());
  all.all.back()->communicator = std::move(communicator);
  return all.all.back().get();
}

Communicator* find(ncclComm_t handle, const char* call) {
  Handles& all = handles();
  const std::scoped_lock lock(all.mutex);
  const auto found = std::ranges::find(all.all, handle, &std::unique_ptr<ncclComm>::get);
  if (found == all.all.end()) {
    cuda_sim::violation(fmt::format("{} on what is no communicator", call));
  }
  if (handle->ended != nullptr) {
    cuda_sim::violation(fmt::format("{} on a communicator after {}", call, handle->ended));
  }
  return handle->communicator.get();
}

ncclResult_t check_usable(Communicator& communicator) {
  const ncclResult_t state = communicator.state();
  return state == ncclInProgress ? refuse_in_progress(communicator) : state;
}

}  // namespace nccl_sim

using namespace nccl_sim;  // the API's names are global

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  if (version == nullptr) {
    return ncclInvalidArgument;
  }
  *version = simulated_version();
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclUnhandledCudaError:
      return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case ncclSystemError:
      return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case ncclInternalError:
      return "internal error - please report this issue to the NCCL developers";
    case ncclInvalidArgument:
      return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case ncclInvalidUsage:
      return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInProgress:
      return "NCCL operation in progress";
    default:
      return "unknown result code";
  }
}

const char* ncclGetLastError(ncclComm_t handle) {
  return handle == nullptr ? "" : find(handle, "ncclGetLastError")->last_error();
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  if (id == nullptr) {
    return ncclInvalidArgument;
  }
  *id = {};
  const std::string text = fmt::format("{}/{}", hub_address(), random_key());
  std::memcpy(id->internal, text.data(), text.size());
  return ncclSuccess;
}

/// "If the communicator is nonblocking, it returns ncclInProgress, and the state is to be asked for by ncclCommGetAsyncError."
ncclResult_t ncclCommInitRankConfig(ncclComm_t* handle, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  std::string address;
  std::uint64_t key = 0;
  if (handle == nullptr || ranks < 1 || rank < 0 || rank >= ranks || !is_valid(config) || !parse(id, address, key)) {
    return ncclInvalidArgument;
  }
  if (cuda_sim_refuse_while_capturing() != cudaSuccess) {
    return ncclUnhandledCudaError;  // it allocates
  }
  int device = 0;
  static_cast<void>(cudaGetDevice(&device));
  const Greeting greeting{.key = key, .ranks = ranks, .rank = rank, .device = device, .process = ::getpid()};
  const auto communicator = std::make_shared<Communicator>(greeting, is_blocking(config));
  *handle = add_handle(communicator);
  communicator->connect(address);
  return communicator->is_blocking() ? communicator->wait_until_done() : ncclInProgress;
}

ncclResult_t ncclCommInitRank(ncclComm_t* handle, int ranks, ncclUniqueId id, int rank) {
  return ncclCommInitRankConfig(handle, ranks, id, rank, nullptr);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t* error) {
  if (handle == nullptr || error == nullptr) {
    return ncclInvalidArgument;
  }
  Communicator* const communicator = find(handle, "ncclCommGetAsyncError");
  *error = communicator->poll();
  if (handle->shrunk && *error == ncclSuccess) {
    publish_shrunk(*handle);
  }
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t handle) {
  if (handle == nullptr) {
    return ncclInvalidArgument;
  }
  Communicator* const communicator = find(handle, "ncclCommFinalize");
  if (const ncclResult_t usable = check_usable(*communicator); usable != ncclSuccess) {
    return usable;
  }
  const ncclResult_t started = communicator->finalize();
  return communicator->is_blocking() ? communicator->wait_until_done() : started;
}

/// "Frees local resources", and finalizes before where nobody did.
ncclResult_t ncclCommDestroy(ncclComm_t handle) {
  if (handle == nullptr) {
    return ncclSuccess;
  }
  Communicator* const communicator = find(handle, "ncclCommDestroy");
  if (communicator->state() != ncclSuccess) {
    cuda_sim::violation("ncclCommDestroy of a communicator that is in progress or has failed may block for ever: use ncclCommAbort");
  }
  if (communicator->is_in_graphs()) {
    cuda_sim::violation("ncclCommDestroy of a communicator whose calls are in a graph blocks until that is destroyed");
  }
  communicator->abort("ncclCommDestroy");
  handle->ended = "ncclCommDestroy";
  return ncclSuccess;
}

/// "Frees resources associated with communicator object and aborts any operations that might still be running on the device."
ncclResult_t ncclCommAbort(ncclComm_t handle) {
  if (handle == nullptr) {
    return ncclSuccess;
  }
  Communicator* const communicator = find(handle, "ncclCommAbort");
  handle->ended = "ncclCommAbort";  // at once: where graphs live, the call takes until their end
  communicator->abort(handle->ended);
  return ncclSuccess;
}

/// "Ranks in excludeRanksList will be removed"; they do not call it. The others call it with the same list.
ncclResult_t ncclCommShrink(ncclComm_t handle, int* excluded, int count, ncclComm_t* made, ncclConfig_t* config, int flags) {
  if (handle == nullptr || made == nullptr || excluded == nullptr || count < 1 || !is_valid(config)) {
    return ncclInvalidArgument;
  }
  Communicator* const communicator = find(handle, "ncclCommShrink");
  if (cuda_sim_refuse_while_capturing() != cudaSuccess) {
    return ncclUnhandledCudaError;  // it allocates
  }
  const bool aborts = (flags & NCCL_SHRINK_ABORT) != 0;
  if (const ncclResult_t usable = check_usable(*communicator); usable != ncclSuccess && !aborts) {
    return usable;
  }
  const std::vector<std::int32_t> ranks(excluded, excluded + count);
  if (std::ranges::any_of(ranks, [&](int rank) { return rank < 0 || rank >= communicator->ranks() || rank == communicator->rank(); })) {
    return ncclInvalidArgument;
  }
  *made = nullptr;
  handle->shrunk = std::make_unique<Shrunk>();
  handle->shrunk->to = made;
  const ncclResult_t state = communicator->shrink(ranks, aborts, &handle->shrunk->communicator, communicator->is_blocking());
  if (state == ncclSuccess) {
    publish_shrunk(*handle);
  }
  return state;
}

ncclResult_t ncclCommCount(ncclComm_t handle, int* count) {
  *count = find(handle, "ncclCommCount")->ranks();
  return ncclSuccess;
}

ncclResult_t ncclCommUserRank(ncclComm_t handle, int* rank) {
  *rank = find(handle, "ncclCommUserRank")->rank();
  return ncclSuccess;
}

}  // extern "C"
