// MappedFile: a read-only memory map of a whole file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "lockstep/core/result.hpp"

namespace lockstep::model {

/// Ownership  unmaps in the destructor.      Threads  reading: any.      A file that shrinks under the map raises SIGBUS on access.
class MappedFile {
 public:
  /// Errors  kInvalidArgument: missing, empty or not a regular file; kResourceExhausted: the kernel refused the map.
  [[nodiscard]] static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(address_), size_}; }
  /// Starts reading `part` of `bytes()` from the disk, without waiting.
  static void will_need(std::span<const std::byte> part);
  /// Takes `part` out of this process's memory; it comes back when it is read again.
  static void done_with(std::span<const std::byte> part);

 private:
  MappedFile(void* address, std::size_t size) : address_(address), size_(size) {}

  void* address_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace lockstep::model
