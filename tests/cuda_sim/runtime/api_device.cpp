// Devices and errors.      Source  CUDA Runtime API 13.0: "Device Management", "Error Handling".
#include <algorithm>
#include <cstdio>
#include <cuda_runtime_api.h>
#include <utility>

#include "tests/cuda_sim/runtime/settings.hpp"
#include "tests/cuda_sim/runtime/state.hpp"

namespace cuda_sim {
namespace {

cudaError_t& last_error() {
  static thread_local cudaError_t code = cudaSuccess;
  return code;
}

struct ErrorText {
  cudaError_t code;
  const char* name;
  const char* text;
};

constexpr ErrorText kErrors[]{
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge", "operation would result in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched", "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread", "attempt to terminate a thread-local capture sequence from another thread"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
};

const ErrorText& text_of(cudaError_t code) {
  static constexpr ErrorText kUnknown{cudaErrorUnknown, "cudaErrorUnknown", "unknown error"};
  const auto* const found = std::ranges::find(kErrors, code, &ErrorText::code);
  return found == std::end(kErrors) ? kUnknown : *found;
}

}  // namespace

cudaError_t failed(cudaError_t code) {
  last_error() = code;
  return code;
}

int& current_device() {
  static thread_local int device = 0;  // "the default device is device 0" of each thread
  return device;
}

}  // namespace cuda_sim

using namespace cuda_sim;  // the API's names are global

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  if (!settings().has_driver) {
    return failed(cudaErrorInsufficientDriver);
  }
  *count = settings().device_count;
  return *count == 0 ? failed(cudaErrorNoDevice) : cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= settings().device_count) {
    return failed(cudaErrorInvalidDevice);
  }
  current_device() = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device();
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= settings().device_count) {
    return failed(cudaErrorInvalidDevice);
  }
  *properties = {};
  static_cast<void>(std::snprintf(properties->name, sizeof properties->name, "simulated device %d", device));
  properties->major = 9;
  properties->minor = 0;
  properties->warpSize = 32;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  if (device < 0 || device >= settings().device_count) {
    return failed(cudaErrorInvalidDevice);
  }
  static_cast<void>(std::snprintf(text, static_cast<std::size_t>(length), "%s:%02x:00.0", settings().machine.c_str(), device));
  return cudaSuccess;
}

/// The last error of the calling thread, which is none afterwards.
cudaError_t cudaGetLastError() {
  return std::exchange(last_error(), cudaSuccess);
}

const char* cudaGetErrorName(cudaError_t code) {
  return text_of(code).name;
}

const char* cudaGetErrorString(cudaError_t code) {
  return text_of(code).text;
}

}  // extern "C"
