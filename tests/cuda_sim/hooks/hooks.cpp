#include "tests/cuda_sim/hooks/hooks.hpp"

#include <memory>
#include <string>

#include "tests/cuda_sim/runtime/capture/capture.hpp"
#include "tests/cuda_sim/runtime/memory.hpp"
#include "tests/cuda_sim/runtime/state.hpp"
#include "tests/cuda_sim/violation.hpp"

using namespace cuda_sim;  // the names are global, as the API's are

extern "C" {

bool cuda_sim_enqueue(cudaStream_t handle, const char* label, void (*run)(void* data), void* data) {
  const std::shared_ptr<SimStream> stream = find_stream(handle, label);
  if (!stream) {
    return false;
  }
  if (is_capturing(*stream)) {
    violation(std::string(label) + " in a capture: what other libraries launch in one is not simulated");
  }
  Scheduler::instance().enqueue(*stream, {.label = label, .run = [run, data] { run(data); }, .awaits = nullptr, .calls_host = true});
  return true;
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
