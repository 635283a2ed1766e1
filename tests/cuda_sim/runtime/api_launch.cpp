// Kernels: what nvcc's binaries register, and their launches, which run the kernels' twins.
// Source  crt/host_runtime.h of the toolkit, which is what such a binary is made of; CUDA C++ Programming Guide: "Execution Configuration", "Compute
// Capabilities".
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "tests/cuda_sim/runtime/capture/capture.hpp"
#include "tests/cuda_sim/runtime/state.hpp"
#include "tests/cuda_sim/twins/block.hpp"
#include "tests/cuda_sim/violation.hpp"

namespace cuda_sim {
namespace {

constexpr unsigned kThreadsMax = 1024;
constexpr unsigned kGridMaxYZ = 65535;
constexpr std::size_t kSharedBytesMax = std::size_t{48} << 10U;  // without asking for more

struct Registered {
  std::mutex mutex;
  std::map<const void*, std::string> names;  ///< by the address of the host's stub; also the handles of kernels
};

Registered& registered() {
  static auto* const all = new Registered;  // NOLINT: never destroyed, binaries unregister after main
  return *all;
}

struct Twins {
  bool (*bind)(const char* name, void** arguments, std::function<void()>* thread) = nullptr;
  void (*run)(const Grid* grid, const std::function<void()>* thread) = nullptr;
};

/// The twins lie beside this library, or where LOCKSTEP_SIM_TWINS says.
const Twins& twins() {
  static const Twins kTwins = [] {
    Dl_info self{};
    dladdr(reinterpret_cast<void*>(&cudaGetDevice), &self);
    const char* const named = std::getenv("LOCKSTEP_SIM_TWINS");
    const std::string path = named != nullptr ? named : (std::filesystem::path(self.dli_fname).parent_path() / "libcuda_twins.so").string();
    void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      violation(fmt::format("no twins of kernels: {}", dlerror()));
    }
    return Twins{.bind = reinterpret_cast<decltype(Twins::bind)>(dlsym(library, "cuda_sim_bind_twin")),
                 .run = reinterpret_cast<decltype(Twins::run)>(dlsym(library, "cuda_sim_run_grid"))};
  }();
  return kTwins;
}

struct Configuration {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes;
  cudaStream_t stream;
};

/// Between <<< >>> and the stub that takes it.
std::vector<Configuration>& configurations() {
  static thread_local std::vector<Configuration> pushed;
  return pushed;
}

Extent extent(const dim3& size) {
  return {size.x, size.y, size.z};
}

cudaError_t launch(const void* handle, const Configuration& configuration, void** arguments) {
  const auto& [grid, block, shared_bytes, stream_handle] = configuration;
  std::string name;
  {
    Registered& all = registered();
    const std::scoped_lock lock(all.mutex);
    const auto found = all.names.find(handle);
    if (found == all.names.end()) {
      return failed(cudaErrorInvalidDeviceFunction);
    }
    name = found->second;
  }
  const bool empty = extent(grid).count() == 0 || extent(block).count() == 0;
  if (empty || extent(block).count() > kThreadsMax || grid.y > kGridMaxYZ || grid.z > kGridMaxYZ || shared_bytes > kSharedBytesMax) {
    return failed(cudaErrorInvalidConfiguration);
  }
  if (!find_stream(stream_handle, name.c_str())) {
    return failed(cudaErrorInvalidResourceHandle);
  }
  std::function<void()> thread;
  if (!twins().bind(name.c_str(), arguments, &thread)) {
    violation(fmt::format("kernel {} has no twin: add it to tests/cuda_sim/twins/kernels.cpp", name));
  }
  // The arguments are those of the call, also at each launch of a graph.
  const auto prepare = [name, grid_size = extent(grid), block_size = extent(block), thread](Launched) -> std::function<void()> {
    const Grid shape{.kernel = name, .grid_size = grid_size, .block_size = block_size, .seed = Scheduler::instance().draw_seed()};
    return [shape, thread] { twins().run(&shape, &thread); };
  };
  return submit(stream_handle, name.c_str(), {.label = "kernel " + name, .prepare = prepare});
}

}  // namespace
}  // namespace cuda_sim

using namespace cuda_sim;  // the API's names are global

extern "C" {

void** __cudaRegisterFatBinary(void* binary) {
  return new void*(binary);
}

void __cudaRegisterFatBinaryEnd(void** /*handle*/) {}

void __cudaUnregisterFatBinary(void** handle) {
  delete handle;
}

char __cudaInitModule(void** /*handle*/) {
  return 1;
}

void __cudaRegisterFunction(void** /*handle*/, const char* stub, char* /*device_function*/, const char* name, int /*thread_limit*/, uint3* /*thread*/,
                            uint3* /*block*/, dim3* /*block_size*/, dim3* /*grid_size*/, int* /*warp_size*/) {
  Registered& all = registered();
  const std::scoped_lock lock(all.mutex);
  all.names[stub] = name;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, std::size_t shared_bytes, CUstream_st* stream) {
  configurations().push_back({grid, block, shared_bytes, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, std::size_t* shared_bytes, void* stream) {
  if (configurations().empty()) {
    return failed(cudaErrorInvalidConfiguration);
  }
  const Configuration last = configurations().back();
  configurations().pop_back();
  *grid = last.grid;
  *block = last.block;
  *shared_bytes = last.shared_bytes;
  *static_cast<cudaStream_t*>(stream) = last.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(stub));  // a handle is an address that nobody looks behind
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, std::size_t shared_bytes, cudaStream_t stream) {
  return launch(kernel, {grid, block, shared_bytes, stream}, arguments);
}

cudaError_t cudaLaunchKernel(const void* stub, dim3 grid, dim3 block, void** arguments, std::size_t shared_bytes, cudaStream_t stream) {
  return launch(stub, {grid, block, shared_bytes, stream}, arguments);
}

}  // extern "C"
