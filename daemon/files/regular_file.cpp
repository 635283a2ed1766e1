#include "daemon/files/regular_file.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "lockstep/core/file_descriptor.hpp"

namespace lockstep::daemon {
namespace {

struct OpenFile {
  FileDescriptor descriptor;
  struct stat facts {};
};

Error unusable(std::string cause) {
  return {ErrorCode::kInvalidArgument, std::move(cause)};
}

Error failed(const char* what) {
  return unusable(fmt::format("cannot be {}: {}", what, std::generic_category().message(errno)));
}

const char* kind_of(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return "a folder";
    case S_IFIFO:
      return "a pipe";
    case S_IFSOCK:
      return "a socket";
    default:
      return "a device";
  }
}

bool is_null_device(const struct stat& facts) {
  return S_ISCHR(facts.st_mode) && facts.st_rdev == makedev(1, 3);  // Linux's fixed number
}

Result<OpenFile> open_regular_file(const std::filesystem::path& file) {
  OpenFile opened{.descriptor = FileDescriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY))};
  if (opened.descriptor.get() < 0) {
    return errno == ENXIO ? unusable("is a socket or a device, not a regular file") : failed("opened");
  }
  if (::fstat(opened.descriptor.get(), &opened.facts) != 0) {
    return failed("read");
  }
  if (!S_ISREG(opened.facts.st_mode) && !is_null_device(opened.facts)) {
    return unusable(fmt::format("is {}, not a regular file", kind_of(opened.facts.st_mode)));
  }
  return opened;
}

}  // namespace

Result<RegularFile> read_regular_file(const std::filesystem::path& file, std::size_t bytes_max) {
  LOCKSTEP_ASSIGN_OR_RETURN(const OpenFile opened, open_regular_file(file));
  RegularFile result{.others_may_read = (opened.facts.st_mode & (S_IRGRP | S_IROTH)) != 0};
  // By what comes, not by the size that it has now: it may be written to at this moment.
  result.text.resize(bytes_max + 1);
  std::size_t bytes = 0;
  while (bytes < result.text.size()) {
    const ssize_t got = ::read(opened.descriptor.get(), result.text.data() + bytes, result.text.size() - bytes);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return failed("read");
    }
    if (got == 0) {
      break;
    }
    bytes += static_cast<std::size_t>(got);
  }
  if (bytes > bytes_max) {
    return unusable(fmt::format("has more than {} bytes", bytes_max));
  }
  result.text.resize(bytes);
  return result;
}

Status check_regular_file(const std::filesystem::path& file) {
  const Result<OpenFile> opened = open_regular_file(file);
  return opened ? Status() : opened.error();
}

}  // namespace lockstep::daemon
