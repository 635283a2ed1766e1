// ApiKeys: who may use the server.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

/// The accepted keys, kept as SHA-256 digests: a comparison takes the same time whatever was presented, and tells neither a key's content nor its length.
/// Threads  const calls from any.
class ApiKeys {
 public:
  /// No key: every caller is accepted by who asks `empty()` first.
  ApiKeys() = default;
  /// Errors  kInvalidArgument for a key that is empty or holds anything but printable ASCII without spaces; the message has its place, never the key.
  [[nodiscard]] static Result<ApiKeys> create(const std::vector<std::string>& keys);

  [[nodiscard]] bool empty() const { return digests_.empty(); }
  /// `authorization` is the header's value: "Bearer KEY", the first word in any case.      Cost  one digest of it, and one comparison per key.
  [[nodiscard]] bool accepts(std::string_view authorization) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  std::vector<Digest> digests_;
};

/// Keys of a file, and what the log should say of it.
struct KeyFile {
  std::vector<std::string> keys;
  std::string warning;  ///< other users may read the file; "" is well
};

/// One key a line; empty lines and lines that begin with '#' are left out.      Errors  kInvalidArgument naming the file:
/// unreadable, too large, no key in it; and the line (never the key) of one that no header could carry.
[[nodiscard]] Result<KeyFile> read_key_file(const std::filesystem::path& file);

}  // namespace lockstep::daemon
