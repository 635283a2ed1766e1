#include "device/cuda/product/blas_library.hpp"

#include <dlfcn.h>
#include <utility>

#include <fmt/format.h>

namespace lockstep::device::cuda {

namespace {

constexpr const char* kFile = "libcublasLt.so.13";

/// Sets `function` to the library's of that name.
template <typename Function>
Status load_function(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));  // POSIX: an object pointer of dlsym is a function's
  if (function == nullptr) {
    return Error{ErrorCode::kUnsupported, fmt::format("{} has no {}: install cuBLAS of CUDA 13", kFile, name)};
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const BlasLibrary>> BlasLibrary::open(const CudaContext& context) {
  // Never closed: its own threads and what it has registered with the runtime would outlive its code.
  void* const library = ::dlopen(kFile, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = ::dlerror();
    return Error{ErrorCode::kUnsupported, fmt::format("{} cannot be loaded: {}; install cuBLAS of CUDA 13", kFile, reason == nullptr ? "unknown" : reason)};
  }
  std::shared_ptr<BlasLibrary> opened(new BlasLibrary);
  LOCKSTEP_RETURN_IF_ERROR(opened->load(library));
  LOCKSTEP_RETURN_IF_ERROR(context.bind());  // a handle is the current device's
  if (Status made = opened->check(opened->create_(&opened->handle_), "cublasLtCreate", context); !made) {
    return Error{ErrorCode::kUnsupported, std::move(made).error().message};
  }
  return std::shared_ptr<const BlasLibrary>(std::move(opened));
}

BlasLibrary::~BlasLibrary() {
  if (handle_ != nullptr) {
    static_cast<void>(destroy_(handle_));
  }
}

Status BlasLibrary::load(void* library) {
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtCreate", create_));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtDestroy", destroy_));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtGetVersion", version_));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtGetStatusName", status_name_));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtGetStatusString", status_text_));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtMatrixLayoutCreate", layout_create));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtMatrixLayoutDestroy", layout_destroy));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtMatrixLayoutSetAttribute", layout_set));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtMatmulDescCreate", operation_create));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtMatmulDescDestroy", operation_destroy));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtMatmulDescSetAttribute", operation_set));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtMatmulPreferenceCreate", preference_create));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtMatmulPreferenceDestroy", preference_destroy));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtMatmulPreferenceSetAttribute", preference_set));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtMatmulAlgoGetHeuristic", find_algorithms));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtMatmulAlgoCheck", check_algorithm));
  LOCKSTEP_RETURN_IF_ERROR(load_function(library, "cublasLtMatmulAlgoConfigGetAttribute", algorithm_get));
  return load_function(library, "cublasLtMatmul", matmul);
}

std::string BlasLibrary::name() const {
  const std::size_t version = version_();  // major * 10000 + minor * 100 + patch
  return fmt::format("cublaslt_{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

Status BlasLibrary::check(cublasStatus_t code, std::string_view call, const CudaContext& context, std::string_view stream) const {
  if (code == CUBLAS_STATUS_SUCCESS) {
    return {};
  }
  const ErrorCode kind = code == CUBLAS_STATUS_ALLOC_FAILED ? ErrorCode::kResourceExhausted : ErrorCode::kInternal;
  return Error{kind, fmt::format("{} failed on {}: {} ({})", call, context.place(stream), status_text_(code), status_name_(code))};
}

}  // namespace lockstep::device::cuda
