#include "model/files/mapped_file.hpp"

#include <bit>
#include <cerrno>
#include <cstdint>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "lockstep/core/file_descriptor.hpp"

namespace lockstep::model {

namespace {

/// Hints go to whole pages, and what they fail to do is no failure.
void advise(std::span<const std::byte> part, int advice) {
  if (part.empty()) {
    return;
  }
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t before = std::bit_cast<std::uintptr_t>(part.data()) % page;
  static_cast<void>(::madvise(const_cast<std::byte*>(part.data() - before), part.size() + before, advice));  // takes no const; it does not write
}

Error failure(const std::filesystem::path& path, const char* what, ErrorCode code) {
  return Error{code, fmt::format("{}: {}: {}", path.string(), what, std::generic_category().message(errno))};
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  // Without O_NONBLOCK, opening a pipe that nobody writes to would block the start for ever.
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    return failure(path, "cannot open", ErrorCode::kInvalidArgument);
  }
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) {
    return failure(path, "cannot read its size", ErrorCode::kInternal);
  }
  if (!S_ISREG(status.st_mode) || status.st_size <= 0) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: empty or not a regular file", path.string())};
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) {
    return failure(path, "cannot map into memory", ErrorCode::kResourceExhausted);
  }
  return MappedFile(address, size);
}

void MappedFile::will_need(std::span<const std::byte> part) {
  advise(part, MADV_WILLNEED);
}

void MappedFile::done_with(std::span<const std::byte> part) {
  advise(part, MADV_DONTNEED);
}

MappedFile::MappedFile(MappedFile&& other) noexcept : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (address_ != nullptr) {
    ::munmap(address_, size_);
  }
}

}  // namespace lockstep::model
