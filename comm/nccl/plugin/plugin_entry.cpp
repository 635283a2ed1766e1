// The one symbol that liblockstep_nccl.so exports.
#include "comm/nccl/plugin/nccl_communicator.hpp"
#include "comm/nccl/plugin_interface.hpp"

extern "C" __attribute__((visibility("default"))) const lockstep::comm::nccl::Plugin* lockstep_comm_plugin() {
  static constexpr lockstep::comm::nccl::Plugin kPlugin{
      .interface_id = LOCKSTEP_COMM_INTERFACE, .make = lockstep::comm::nccl::NcclCommunicator::create, .probe = lockstep::comm::nccl::NcclContext::probe};
  return &kPlugin;
}
