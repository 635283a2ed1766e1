#include "daemon/http/tls/tls_session.hpp"

#include <algorithm>
#include <array>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "lockstep/core/check.hpp"

namespace lockstep::daemon {
namespace {

constexpr std::size_t kRecordBytesMax = 16384;

}  // namespace

TlsSession::TlsSession(const std::shared_ptr<ssl_ctx_st>& context)
    : session_(SSL_new(context.get())), input_(BIO_new(BIO_s_mem())), output_(BIO_new(BIO_s_mem())) {
  LOCKSTEP_CHECK(session_ != nullptr && input_ != nullptr && output_ != nullptr, "OpenSSL has no memory for a session");
  SSL_set_bio(session_, input_, output_);
  SSL_set_accept_state(session_);
}

TlsSession::~TlsSession() {
  SSL_free(session_);
}

TlsSession::State TlsSession::receive(std::string_view cipher, std::string& plain, std::string& cipher_out) {
  if (state_ == State::kClosed || state_ == State::kFailed) {
    return state_;
  }
  ERR_clear_error();  // SSL_get_error looks at this thread's queue, whoever filled it
  BIO_write(input_, cipher.data(), static_cast<int>(cipher.size()));
  std::array<char, kRecordBytesMax> piece;
  for (;;) {
    const int got = SSL_read(session_, piece.data(), static_cast<int>(piece.size()));  // shakes hands first
    if (got > 0) {
      plain.append(piece.data(), static_cast<std::size_t>(got));
      continue;
    }
    const int error = SSL_get_error(session_, got);
    if (error == SSL_ERROR_ZERO_RETURN) {
      state_ = State::kClosed;
    } else if (error != SSL_ERROR_WANT_READ) {
      state_ = State::kFailed;
    } else if (SSL_is_init_finished(session_) == 1) {
      state_ = State::kOpen;
    }
    break;
  }
  take_output(cipher_out);
  ERR_clear_error();
  return state_;
}

void TlsSession::send(std::string_view plain, std::string& cipher_out) {
  LOCKSTEP_CHECK(state_ == State::kOpen || state_ == State::kClosed, "TLS is not open: state {}", static_cast<int>(state_));
  ERR_clear_error();
  while (!plain.empty()) {
    const std::string_view record = plain.substr(0, kRecordBytesMax);
    // A memory BIO takes everything; the only errors left are of memory, and then the client gets less than it was promised and notices.
    if (SSL_write(session_, record.data(), static_cast<int>(record.size())) <= 0) {
      state_ = State::kFailed;
      break;
    }
    plain.remove_prefix(record.size());
  }
  take_output(cipher_out);
}

void TlsSession::end(std::string& cipher_out) {
  if (state_ == State::kOpen || state_ == State::kClosed) {
    SSL_shutdown(session_);
    take_output(cipher_out);
  }
}

void TlsSession::take_output(std::string& cipher_out) {
  const std::size_t pending = BIO_ctrl_pending(output_);
  const std::size_t before = cipher_out.size();
  cipher_out.resize(before + pending);
  const int got = pending == 0 ? 0 : BIO_read(output_, cipher_out.data() + before, static_cast<int>(pending));
  cipher_out.resize(before + static_cast<std::size_t>(std::max(got, 0)));
}

}  // namespace lockstep::daemon
