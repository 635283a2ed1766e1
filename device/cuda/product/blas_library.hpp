// BlasLibrary: NVIDIA's cuBLASLt, opened when it is wanted, so that the plugin loads and computes where it is not installed.
#pragma once

#include <cublasLt.h>
#include <memory>
#include <string>
#include <string_view>

#include "device/cuda/cuda_context.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::device::cuda {

/// The library's functions that products need, and one handle of it.
/// Ownership  the handle; the library itself stays loaded.      Threads  safe: a handle holds nothing of a call.
class BlasLibrary {
 public:
  /// Errors  kUnsupported: the library is not there, is another one, or finds no device that it knows; why, and what to install.
  [[nodiscard]] static Result<std::shared_ptr<const BlasLibrary>> open(const CudaContext& context);
  ~BlasLibrary();
  BlasLibrary(const BlasLibrary&) = delete;
  BlasLibrary& operator=(const BlasLibrary&) = delete;

  /// Such as "cublaslt_13.1.0": results of two versions may differ in their last bits.
  [[nodiscard]] std::string name() const;
  [[nodiscard]] cublasLtHandle_t handle() const { return handle_; }
  /// Nothing for success; else an error that names the call, device, stream and step.      Errors  kResourceExhausted: no memory; kInternal: all others.
  [[nodiscard]] Status check(cublasStatus_t code, std::string_view call, const CudaContext& context, std::string_view stream = {}) const;

  // The library's functions, by its names without the prefix.
  decltype(&::cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&::cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&::cublasLtMatrixLayoutSetAttribute) layout_set = nullptr;
  decltype(&::cublasLtMatmulDescCreate) operation_create = nullptr;
  decltype(&::cublasLtMatmulDescDestroy) operation_destroy = nullptr;
  decltype(&::cublasLtMatmulDescSetAttribute) operation_set = nullptr;
  decltype(&::cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&::cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) find_algorithms = nullptr;
  decltype(&::cublasLtMatmulAlgoCheck) check_algorithm = nullptr;
  decltype(&::cublasLtMatmulAlgoConfigGetAttribute) algorithm_get = nullptr;
  decltype(&::cublasLtMatmul) matmul = nullptr;

 private:
  BlasLibrary() = default;
  [[nodiscard]] Status load(void* library);

  decltype(&::cublasLtCreate) create_ = nullptr;
  decltype(&::cublasLtDestroy) destroy_ = nullptr;
  decltype(&::cublasLtGetVersion) version_ = nullptr;
  decltype(&::cublasLtGetStatusName) status_name_ = nullptr;
  decltype(&::cublasLtGetStatusString) status_text_ = nullptr;
  cublasLtHandle_t handle_ = nullptr;
};

}  // namespace lockstep::device::cuda
