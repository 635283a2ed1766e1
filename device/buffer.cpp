#include <utility>

#include "lockstep/device/device.hpp"

namespace lockstep::device {

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      release_(std::exchange(other.release_, nullptr)),
      owner_(other.owner_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  // Swapped through a temporary, so that the old memory is freed now and self-assignment is harmless.
  Buffer taken(std::move(other));
  std::swap(data_, taken.data_);
  std::swap(bytes_, taken.bytes_);
  std::swap(release_, taken.release_);
  std::swap(owner_, taken.owner_);
  return *this;
}

Buffer::~Buffer() {
  if (release_ != nullptr) {
    release_(owner_, data_, bytes_);
  }
}

}  // namespace lockstep::device
