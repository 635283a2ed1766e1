// MemoryFile: a fuzz input where the code under test wants the path of a file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <unistd.h>

#include "lockstep/core/check.hpp"

namespace lockstep::fuzz {

/// A file without a place on disk: thousands of inputs a second would wear one out.      Ownership  owns the descriptor.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content) : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    LOCKSTEP_CHECK(descriptor_ >= 0, "no memory file");
    std::size_t done = 0;
    while (done < content.size()) {
      const ssize_t written = ::write(descriptor_, content.data() + done, content.size() - done);
      LOCKSTEP_CHECK(written > 0, "wrote {} of {} bytes", done, content.size());
      done += static_cast<std::size_t>(written);
    }
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  [[nodiscard]] std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

/// The bytes of an input as text.
inline std::string_view text_of(const unsigned char* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};  // bytes to characters of the same size
}

/// Cuts `input` at its first byte `mark`: before it, after it. Without one all is before.
inline std::string_view take_until(std::string_view& input, char mark) {
  const std::size_t end = std::min(input.find(mark), input.size());
  const std::string_view part = input.substr(0, end);
  input.remove_prefix(std::min(end + 1, input.size()));
  return part;
}

}  // namespace lockstep::fuzz
