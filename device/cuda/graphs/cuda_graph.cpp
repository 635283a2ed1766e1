#include "device/cuda/graphs/cuda_graph.hpp"

#include <utility>

#include "device/cuda/streams/cuda_stream.hpp"

namespace lockstep::device::cuda {

namespace {

struct GraphDestroy {
  void operator()(cudaGraph_t graph) const { static_cast<void>(cudaGraphDestroy(graph)); }
};
using OwnedGraph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, GraphDestroy>;

}  // namespace

Result<std::unique_ptr<Graph>> CudaGraph::capture(std::shared_ptr<const CudaContext> context, Stream& stream, Task body) {
  auto& on = static_cast<CudaStream&>(stream);
  LOCKSTEP_RETURN_IF_ERROR(on.take_failure());  // of earlier work
  LOCKSTEP_RETURN_IF_ERROR(context->bind());
  LOCKSTEP_RETURN_IF_ERROR(on.begin_capture());
  on.enqueue(std::move(body));
  cudaGraph_t captured = nullptr;
  std::uint64_t kernels = 0;
  Status ended = on.end_capture(captured, kernels);  // also after a failure: else the stream would stay in the capture
  const OwnedGraph graph(captured);
  LOCKSTEP_RETURN_IF_ERROR(on.take_failure());
  LOCKSTEP_RETURN_IF_ERROR(std::move(ended));
  cudaGraphExec_t executable = nullptr;
  LOCKSTEP_RETURN_IF_ERROR(context->check(cudaGraphInstantiate(&executable, graph.get(), 0), "cudaGraphInstantiate", on.name()));
  auto made = std::make_unique<CudaGraph>(context, executable, kernels);
  // What the first launch would have to bring to the device is there before the first request.
  LOCKSTEP_RETURN_IF_ERROR(context->check(cudaGraphUpload(executable, on.native()), "cudaGraphUpload", on.name()));
  return std::unique_ptr<Graph>(std::move(made));
}

CudaGraph::~CudaGraph() {
  static_cast<void>(cudaGraphExecDestroy(executable_));
}

void CudaGraph::launch(Stream& stream) {
  auto& on = static_cast<CudaStream&>(stream);
  on.check(cudaGraphLaunch(executable_, on.native()), "cudaGraphLaunch");
  context_->count_graph_launch(kernels_);
}

}  // namespace lockstep::device::cuda
