#include "daemon/http/tls/tls_identity.hpp"

#include <array>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "daemon/files/regular_file.hpp"

namespace lockstep::daemon {
namespace {

/// The oldest message of this thread's error queue, which is then empty.
std::string last_openssl_error() {
  const unsigned long code = ERR_get_error();
  std::array<char, 256> text{};
  if (code != 0) {
    ERR_error_string_n(code, text.data(), text.size());
  }
  ERR_clear_error();
  return code == 0 ? std::string("no reason was given") : std::string(text.data());
}

constexpr const char* kCertificateExpected = "a PEM file with the certificate and what signed it";
constexpr const char* kKeyExpected = "a PEM file with the certificate's private key, without a passphrase";

Error bad_file(const char* option, const std::filesystem::path& file, std::string_view cause, const char* expected) {
  return {ErrorCode::kInvalidArgument, fmt::format("{} {}: {}; expected {}", option, file.string(), cause, expected)};
}

/// Takes the first protocol of ours that the client offers; without a common one the handshake goes on without any, as for clients that offer none.
int choose_protocol(SSL* /*session*/, const unsigned char** chosen, unsigned char* chosen_length, const unsigned char* offered, unsigned int offered_length,
                    void* /*context*/) {
  static constexpr std::array<unsigned char, 9> kProtocols{8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  unsigned char* match = nullptr;
  if (SSL_select_next_proto(&match, chosen_length, kProtocols.data(), kProtocols.size(), offered, offered_length) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *chosen = match;
  return SSL_TLSEXT_ERR_OK;
}

/// No terminal is asked for a passphrase: a daemon has none.
int no_passphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*context*/) {
  return 0;
}

Result<std::shared_ptr<SSL_CTX>> make_context(const std::filesystem::path& certificate_file, const std::filesystem::path& key_file) {
  // OpenSSL would wait for a pipe: at a reload, with the thread that serves.
  if (const Status file = check_regular_file(certificate_file); !file) {
    return bad_file("--tls-cert", certificate_file, file.error().message, kCertificateExpected);
  }
  if (const Status file = check_regular_file(key_file); !file) {
    return bad_file("--tls-key", key_file, file.error().message, kKeyExpected);
  }
  ERR_clear_error();
  const std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (!context || SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION) != 1) {
    return Error{ErrorCode::kInternal, fmt::format("OpenSSL cannot serve TLS 1.2: {}", last_openssl_error())};
  }
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_mode(context.get(), SSL_MODE_RELEASE_BUFFERS);
  // Clients keep their sessions themselves, as tickets: 20,000 of TLS 1.2 would be kept here besides.
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_default_passwd_cb(context.get(), no_passphrase);
  SSL_CTX_set_alpn_select_cb(context.get(), choose_protocol, nullptr);
  if (SSL_CTX_use_certificate_chain_file(context.get(), certificate_file.c_str()) != 1) {
    return bad_file("--tls-cert", certificate_file, last_openssl_error(), kCertificateExpected);
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), key_file.c_str(), SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(context.get()) != 1) {
    return bad_file("--tls-key", key_file, last_openssl_error(), kKeyExpected);
  }
  return context;
}

}  // namespace

Result<std::unique_ptr<TlsIdentity>> TlsIdentity::load(const std::filesystem::path& certificate_file, const std::filesystem::path& key_file) {
  std::unique_ptr<TlsIdentity> identity(new TlsIdentity(certificate_file, key_file));
  LOCKSTEP_RETURN_IF_ERROR(identity->reload());
  return identity;
}

Status TlsIdentity::reload() {
  LOCKSTEP_ASSIGN_OR_RETURN(context_, make_context(certificate_file_, key_file_));
  return {};
}

}  // namespace lockstep::daemon
