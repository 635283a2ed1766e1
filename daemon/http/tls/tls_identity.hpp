// TlsIdentity: the certificate and key by which the server is known, and how they are replaced while it runs.
#pragma once

#include <filesystem>
#include <memory>

#include "lockstep/core/result.hpp"

// OpenSSL's own names for its types.
struct ssl_ctx_st;

namespace lockstep::daemon {

/// Holds what new connections are secured with; those that are open keep what they began with.      Threads  the Asio thread.
class TlsIdentity {
 public:
  /// TLS 1.2 and newer, HTTP/1.1 only, no renegotiation; PEM files, the certificate's chain in the first.
  /// Errors  kInvalidArgument naming the file: unreadable, not PEM, a key that needs a passphrase, a key of another certificate.
  [[nodiscard]] static Result<std::unique_ptr<TlsIdentity>> load(const std::filesystem::path& certificate_file, const std::filesystem::path& key_file);

  /// Reads both files again. On an error, which is as of `load`, the old pair stays.
  [[nodiscard]] Status reload();
  [[nodiscard]] const std::shared_ptr<ssl_ctx_st>& context() const { return context_; }

 private:
  TlsIdentity(std::filesystem::path certificate_file, std::filesystem::path key_file)
      : certificate_file_(std::move(certificate_file)), key_file_(std::move(key_file)) {}

  std::filesystem::path certificate_file_;
  std::filesystem::path key_file_;
  std::shared_ptr<ssl_ctx_st> context_;  ///< shared with the sessions that began with it
};

}  // namespace lockstep::daemon
