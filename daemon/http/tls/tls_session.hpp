// TlsSession: one connection's TLS, from bytes to bytes. It knows no sockets: who has one moves the bytes.
#pragma once

#include <memory>
#include <string>
#include <string_view>

struct bio_st;
struct ssl_ctx_st;
struct ssl_st;

namespace lockstep::daemon {

/// The server's side of one TLS connection.      Threads  one.
class TlsSession {
 public:
  enum class State { kHandshake, kOpen, kClosed, kFailed };

  explicit TlsSession(const std::shared_ptr<ssl_ctx_st>& context);
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  [[nodiscard]] State state() const { return state_; }
  /// Takes all of `cipher`; what it says is appended to `plain`, what TLS itself wants to answer to `cipher_out`.
  /// kClosed: the client has ended its side; kFailed: this is not TLS, or not ours; `cipher_out` may hold the alert for it.
  State receive(std::string_view cipher, std::string& plain, std::string& cipher_out);
  /// Appends `plain`, encrypted, to `cipher_out`. Only when kOpen.
  void send(std::string_view plain, std::string& cipher_out);
  /// Appends our "no more will follow".
  void end(std::string& cipher_out);

 private:
  void take_output(std::string& cipher_out);

  ssl_st* session_;
  bio_st* input_;   ///< owned by session_
  bio_st* output_;  ///< owned by session_
  State state_ = State::kHandshake;
};

}  // namespace lockstep::daemon
