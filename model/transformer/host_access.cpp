#include "model/transformer/host_access.hpp"

namespace lockstep::model {

Result<ReadableBuffer> ReadableBuffer::create(device::Device& device, std::size_t bytes) {
  ReadableBuffer made;
  made.copied_ = !device.host_memory();
  LOCKSTEP_ASSIGN_OR_RETURN(made.device_, device.allocate(bytes));
  if (made.copied_) {
    LOCKSTEP_ASSIGN_OR_RETURN(made.host_, device.allocate_host(bytes));
  }
  return made;
}

}  // namespace lockstep::model
