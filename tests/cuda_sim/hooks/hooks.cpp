#include "tests/cuda_sim/hooks/hooks.hpp"

#include <memory>
#include <string>
#include <utility>

#include "tests/cuda_sim/runtime/capture/capture.hpp"
#include "tests/cuda_sim/runtime/memory.hpp"
#include "tests/cuda_sim/runtime/state.hpp"
#include "tests/cuda_sim/violation.hpp"

using namespace cuda_sim;  // the names are global, as the API's are

extern "C" {

cudaError_t cuda_sim_launch(cudaStream_t handle, cuda_sim::WaitingKernel kernel) {
  const auto prepare = [prepare = std::move(kernel.prepare)](Launched launched) { return prepare(launched == Launched::kByGraph); };
  return submit(handle, kernel.label,
                {.label = kernel.label, .prepare = prepare, .calls_host = true, .chains = std::move(kernel.chains), .order = kernel.order});
}

void cuda_sim_capture(cudaStream_t handle, cuda_sim::CaptureState* state) {
  const std::shared_ptr<SimStream> stream = find_stream(handle, "a call of NCCL");
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  const std::uint64_t id = stream ? capture_id(*stream, mode) : 0;
  *state = {.id = id, .is_global = mode == cudaStreamCaptureModeGlobal};
}

cudaError_t cuda_sim_refuse_while_capturing() {
  return refuse_while_capturing();
}

bool cuda_sim_enqueue_kernel(cudaStream_t handle, const char* label, void (*run)(void* data), void (*release)(void* data), void* data) {
  const std::shared_ptr<void> held(data, release);
  const auto prepare = [run, held](Launched /*launched*/) -> std::function<void()> { return [run, held] { run(held.get()); }; };
  return submit(handle, label, {.label = label, .prepare = prepare}) == cudaSuccess;
}

void cuda_sim_with_device_memory(const char* label, void (*body)(void* data), void* data) {
  const std::string name = label;
  const DeviceAccess access(name);
  body(data);
}

void cuda_sim_check_device_range(const void* data, std::size_t bytes, const char* call) {
  check_device_range(data, bytes, call);
}

unsigned cuda_sim_draw(unsigned choices) {
  return Scheduler::instance().draw(choices);
}

}  // extern "C"
