// FileDescriptor: an open file of the system, closed when it goes.
#pragma once

#include <unistd.h>
#include <utility>

namespace lockstep {

/// Ownership  closes in the destructor.      Threads  one at a time.      Errors  of closing are not told: use it for what was only read.
class FileDescriptor {
 public:
  /// Takes over what open() or socket() returned; a negative number is none.
  explicit FileDescriptor(int value) : value_(value) {}
  FileDescriptor(FileDescriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (value_ >= 0) {
      ::close(value_);
    }
  }
  [[nodiscard]] int get() const { return value_; }

 private:
  int value_;
};

}  // namespace lockstep
