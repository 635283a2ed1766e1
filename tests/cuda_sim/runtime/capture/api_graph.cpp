// Captures and graphs.      Source  see capture.hpp.
// Stricter than a device: what a captured copy reads of the host is poison until it is written anew for each launch, and a graph that runs is not destroyed.
#include <algorithm>
#include <cuda_runtime_api.h>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tests/cuda_sim/runtime/capture/capture.hpp"
#include "tests/cuda_sim/runtime/memory.hpp"
#include "tests/cuda_sim/runtime/state.hpp"
#include "tests/cuda_sim/violation.hpp"

struct CUgraph_st {
  std::vector<cuda_sim::Node> nodes;
};

struct CUgraphExec_st {
  std::vector<cuda_sim::Node> nodes;
  std::shared_ptr<cuda_sim::Operation> last;  ///< its newest launch; null: none
};

namespace cuda_sim {
namespace {

/// Graphs that exist.
struct Graphs {
  std::mutex mutex;
  std::set<cudaGraph_t> graphs;
  std::set<cudaGraphExec_t> executables;
};

Graphs& graphs() {
  static auto* const all = new Graphs;  // NOLINT: never destroyed, as streams
  return *all;
}

/// Under the lock. A handle of nothing is not looked behind: a driver would.
template <typename Handle>
void check_lives(const std::set<Handle>& living, Handle handle, const char* call) {
  if (!living.contains(handle)) {
    violation(fmt::format("{} of a graph that was destroyed, or never was", call));
  }
}

/// One of the orders that the nodes' dependencies allow, drawn as the schedule says: branches have no order among each other.
std::vector<std::size_t> draw_order(const std::vector<Node>& nodes) {
  std::vector<std::size_t> order;
  std::vector<bool> done(nodes.size(), false);
  while (order.size() < nodes.size()) {
    std::vector<std::size_t> ready;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (!done[i] && std::ranges::all_of(nodes[i].after, [&done](std::size_t before) { return done[before]; })) {
        ready.push_back(i);
      }
    }
    const std::size_t next = ready.size() == 1 ? ready.front() : ready[Scheduler::instance().draw(static_cast<unsigned>(ready.size()))];
    done[next] = true;
    order.push_back(next);
  }
  return order;
}

struct Launch {
  std::string label;
  std::function<void()> run;
  bool calls_host;
};

void run_all(const std::vector<Launch>& launches) {
  for (const Launch& launch : launches) {
    if (launch.calls_host) {
      launch.run();
    } else if (launch.run) {
      const DeviceAccess access(launch.label);
      launch.run();
    }
  }
}

}  // namespace
}  // namespace cuda_sim

using namespace cuda_sim;  // the API's names are global

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const std::shared_ptr<SimStream> stream = find_stream(handle, "cudaStreamBeginCapture");
  return stream ? begin_capture(*stream, mode) : failed(cudaErrorInvalidResourceHandle);
}

/// After an error there is no graph.
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  *graph = nullptr;
  const std::shared_ptr<SimStream> stream = find_stream(handle, "cudaStreamEndCapture");
  if (!stream) {
    return failed(cudaErrorInvalidResourceHandle);
  }
  std::vector<Node> nodes;
  if (const cudaError_t code = end_capture(*stream, nodes); code != cudaSuccess) {
    return code;
  }
  *graph = new CUgraph_st{.nodes = std::move(nodes)};
  Graphs& all = graphs();
  const std::scoped_lock lock(all.mutex);
  all.graphs.insert(*graph);
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  const std::shared_ptr<SimStream> stream = find_stream(handle, "cudaStreamIsCapturing");
  return stream ? capture_status(*stream, *status) : failed(cudaErrorInvalidResourceHandle);
}

/// With no array to write them to: how many there are.
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  Graphs& all = graphs();
  const std::scoped_lock lock(all.mutex);
  check_lives(all.graphs, graph, "cudaGraphGetNodes");
  if (nodes != nullptr) {
    return failed(cudaErrorInvalidValue);  // of this double: nodes have no handles
  }
  *count = graph->nodes.size();
  return cudaSuccess;
}

/// A graph of its own: what happens to `graph` later does not change it.
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags) {
  Graphs& all = graphs();
  const std::scoped_lock lock(all.mutex);
  check_lives(all.graphs, graph, "cudaGraphInstantiate");
  if (flags != 0) {
    return failed(cudaErrorInvalidValue);  // of this double
  }
  *executable = new CUgraphExec_st{.nodes = graph->nodes, .last = nullptr};
  all.executables.insert(*executable);
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  Graphs& all = graphs();
  const std::scoped_lock lock(all.mutex);
  check_lives(all.graphs, graph, "cudaGraphDestroy");
  all.graphs.erase(graph);
  delete graph;
  return cudaSuccess;
}

/// Work in the stream's order that changes nothing.
cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t stream) {
  {
    Graphs& all = graphs();
    const std::scoped_lock lock(all.mutex);
    check_lives(all.executables, executable, "cudaGraphUpload");
  }
  return submit(stream, "cudaGraphUpload", {.label = "cudaGraphUpload", .prepare = nullptr});
}

/// "Only one instance of graphExec may be executing at a time. Each launch is ordered behind both any previous work in stream and any previous launches of
/// graphExec."
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle) {
  const std::shared_ptr<SimStream> stream = find_stream(handle, "cudaGraphLaunch");
  if (!stream) {
    return failed(cudaErrorInvalidResourceHandle);
  }
  if (const cudaError_t code = refuse_on_capturing(*stream); code != cudaSuccess) {
    return code;  // a device would make it a node; nothing of ours captures graphs in graphs
  }
  Graphs& all = graphs();
  std::vector<Launch> launches;
  std::set<const void*> orders;
  bool calls_host = false;
  std::shared_ptr<Operation> previous;
  {
    const std::scoped_lock lock(all.mutex);
    check_lives(all.executables, executable, "cudaGraphLaunch");
    for (const std::size_t index : draw_order(executable->nodes)) {
      const Work& work = executable->nodes[index].work;
      launches.push_back({.label = work.label, .run = work.prepare ? work.prepare(Launched::kByGraph) : nullptr, .calls_host = work.calls_host});
      calls_host = calls_host || work.calls_host;
      if (work.order != nullptr) {
        orders.insert(work.order);
      }
    }
    previous = executable->last;
  }
  Scheduler& scheduler = Scheduler::instance();
  if (previous) {
    scheduler.enqueue(*stream, {.label = "the launch before", .run = nullptr, .awaits = std::move(previous)});
  }
  std::shared_ptr<Operation> launched = scheduler.enqueue(*stream, {.label = "cudaGraphLaunch",
                                                                    .run = [launches = std::move(launches)] { run_all(launches); },
                                                                    .awaits = nullptr,
                                                                    .calls_host = calls_host,
                                                                    .opens = LaunchOrders::instance().last(orders)});
  LaunchOrders::instance().launched(orders, launched);
  const std::scoped_lock lock(all.mutex);
  executable->last = std::move(launched);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  Graphs& all = graphs();
  const std::scoped_lock lock(all.mutex);
  check_lives(all.executables, executable, "cudaGraphExecDestroy");
  if (executable->last && !Scheduler::instance().is_done(*executable->last)) {
    violation("cudaGraphExecDestroy of a graph that a stream still has to run, or runs");
  }
  all.executables.erase(executable);
  delete executable;
  return cudaSuccess;
}

}  // extern "C"
