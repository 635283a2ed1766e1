// Collectives, pairs and groups.
// Source  NCCL 2.28 user guide: "Collective Communication Functions", "Point To Point Communication Functions", "Group Calls", "Nonblocking Group Operation";
// nccl.h of 2.28.9.
#include <algorithm>
#include <nccl.h>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tests/cuda_sim/hooks/hooks.hpp"
#include "tests/cuda_sim/nccl/handles.hpp"
#include "tests/cuda_sim/violation.hpp"

namespace nccl_sim {
namespace {

struct Grouped {
  ncclComm_t handle;
  cudaStream_t stream;
  std::vector<LocalCall> calls;
};
/// Between ncclGroupStart and ncclGroupEnd of one thread.
struct Group {
  int depth = 0;
  std::vector<Grouped> communicators;
};
Group& group() {
  static thread_local Group open;
  return open;
}

ncclResult_t launch(Grouped& grouped) {
  Communicator* const communicator = find(grouped.handle, "ncclGroupEnd");
  if (const ncclResult_t usable = check_usable(*communicator); usable != ncclSuccess) {
    return usable;
  }
  return communicator->launch(std::move(grouped.calls), grouped.stream);
}

ncclResult_t close_group() {
  ncclResult_t outcome = ncclSuccess;
  for (Grouped& grouped : std::exchange(group().communicators, {})) {
    const ncclResult_t launched = launch(grouped);
    if (launched != ncclSuccess && (outcome == ncclSuccess || outcome == ncclInProgress)) {
      outcome = launched;
    }
  }
  return outcome;
}

/// "If no group is open, a call is a group of its own."
ncclResult_t add(ncclComm_t handle, cudaStream_t stream, const LocalCall& local, const char* name) {
  if (handle == nullptr) {
    return ncclInvalidArgument;
  }
  Communicator* const communicator = find(handle, name);
  if (const ncclResult_t usable = check_usable(*communicator); usable != ncclSuccess) {
    return usable;
  }
  const Call& call = local.call;
  const bool is_pair = !call.is_collective();
  if (element_bytes(call.datatype) == 0 || call.op < 0 || call.op >= ncclNumOps || (is_pair && (call.peer < 0 || call.peer >= communicator->ranks()))) {
    communicator->note(fmt::format("{}: an argument is out of range", name));
    return ncclInvalidArgument;
  }
  if (call.count == 0 && !is_pair) {
    return ncclSuccess;
  }
  if (call.sent_bytes() > 0) {
    cuda_sim_check_device_range(local.send, call.sent_bytes(), name);
  }
  if (call.received_bytes(communicator->ranks()) > 0) {
    cuda_sim_check_device_range(local.receive, call.received_bytes(communicator->ranks()), name);
  }
  std::vector<Grouped>& all = group().communicators;
  const auto found = std::ranges::find(all, handle, &Grouped::handle);
  if (found != all.end() && found->stream != stream) {
    cuda_sim::violation("one group uses two streams of one communicator, which is not simulated");
  }
  Grouped& grouped = found == all.end() ? all.emplace_back(Grouped{.handle = handle, .stream = stream, .calls = {}}) : *found;
  grouped.calls.push_back(local);
  return group().depth > 0 ? ncclSuccess : close_group();
}

}  // namespace
}  // namespace nccl_sim

using namespace nccl_sim;  // the API's names are global

extern "C" {

ncclResult_t ncclGroupStart() {
  ++group().depth;
  return ncclSuccess;
}

/// "Nothing will be started on the CUDA stream until ncclGroupEnd"; with a nonblocking communicator perhaps not even then, and ncclInProgress says so.
ncclResult_t ncclGroupEnd() {
  if (group().depth == 0) {
    return ncclInvalidUsage;
  }
  return --group().depth > 0 ? ncclSuccess : close_group();
}

ncclResult_t ncclAllReduce(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t handle, cudaStream_t stream) {
  const Call call{.kind = CallKind::kAllReduce, .datatype = type, .op = op, .peer = -1, .count = count};
  return add(handle, stream, {.call = call, .send = send, .receive = receive}, "ncclAllReduce");
}

ncclResult_t ncclAllGather(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclComm_t handle, cudaStream_t stream) {
  const Call call{.kind = CallKind::kAllGather, .datatype = type, .op = 0, .peer = -1, .count = count};
  return add(handle, stream, {.call = call, .send = send, .receive = receive}, "ncclAllGather");
}

ncclResult_t ncclSend(const void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t handle, cudaStream_t stream) {
  const Call call{.kind = CallKind::kSend, .datatype = type, .op = 0, .peer = peer, .count = count};
  return add(handle, stream, {.call = call, .send = data, .receive = nullptr}, "ncclSend");
}

ncclResult_t ncclRecv(void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t handle, cudaStream_t stream) {
  const Call call{.kind = CallKind::kReceive, .datatype = type, .op = 0, .peer = peer, .count = count};
  return add(handle, stream, {.call = call, .send = nullptr, .receive = data}, "ncclRecv");
}

}  // extern "C"
