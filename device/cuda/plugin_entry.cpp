// The one symbol that liblockstep_cuda.so exports.
#include "device/cuda/cuda_device.hpp"
#include "device/plugin/plugin_interface.hpp"

extern "C" __attribute__((visibility("default"))) const lockstep::device::plugin::Plugin* lockstep_device_plugin() {
  static constexpr lockstep::device::plugin::Plugin kPlugin{
      .interface_id = LOCKSTEP_DEVICE_INTERFACE, .probe = lockstep::device::cuda::probe_cuda_device, .make = lockstep::device::cuda::create_cuda_device};
  return &kPlugin;
}
