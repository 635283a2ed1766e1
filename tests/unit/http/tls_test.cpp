// Goal: clients are served over TLS 1.2 and newer, and nothing else; a certificate can be replaced under open connections.
// Method: certificates made here; OpenSSL's own client over a blocking socket.
#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "daemon/http/tls/tls_identity.hpp"
#include "tests/unit/daemon/support/server_fixture.hpp"

namespace lockstep::daemon::testing {
namespace {

using ::testing::HasSubstr;
using std::chrono_literals::operator""ms;

/// Writes a key and a certificate of `name` that it signs itself.
void write_pair(const std::filesystem::path& certificate_file, const std::filesystem::path& key_file, const std::string& name) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME* subject = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(certificate, subject);
  X509_sign(certificate, key, EVP_sha256());
  BIO* file = BIO_new_file(certificate_file.c_str(), "w");
  PEM_write_bio_X509(file, certificate);
  BIO_free(file);
  file = BIO_new_file(key_file.c_str(), "w");
  PEM_write_bio_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  BIO_free(file);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

/// One connection under TLS; `connected` says whether the handshake came to an end.
class TlsClient {
 public:
  explicit TlsClient(std::uint16_t port, int newest_version = TLS1_3_VERSION) : context_(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_set_security_level(context_, 0);  // else the client itself would not try what the server is to refuse
    SSL_CTX_set_min_proto_version(context_, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context_, newest_version);
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval patience{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    session_ = SSL_new(context_);
    SSL_set_fd(session_, socket_);
    connected_ = SSL_connect(session_) == 1;
  }
  ~TlsClient() {
    SSL_free(session_);
    SSL_CTX_free(context_);
    ::close(socket_);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  [[nodiscard]] bool connected() const { return connected_; }
  [[nodiscard]] std::string peer_name() const {
    X509* certificate = SSL_get1_peer_certificate(session_);
    char name[64] = "";
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, sizeof name);
    X509_free(certificate);
    return name;
  }
  bool send(const std::string& text) { return SSL_write(session_, text.data(), static_cast<int>(text.size())) == static_cast<int>(text.size()); }
  /// Up to and with `mark`; "" when the connection ended before.
  std::string read_until(const std::string& mark) {
    std::size_t found = 0;
    while ((found = buffer_.find(mark)) == std::string::npos) {
      char piece[4096];
      const int got = SSL_read(session_, piece, sizeof piece);
      if (got <= 0) {
        ended_in_order_ = SSL_get_error(session_, got) == SSL_ERROR_ZERO_RETURN;
        return "";
      }
      buffer_.append(piece, static_cast<std::size_t>(got));
    }
    std::string result = buffer_.substr(0, found + mark.size());
    buffer_.erase(0, result.size());
    return result;
  }
  /// So often, without reading the answers. False: the server has closed the connection.
  bool asks_for_keys(int times) {
    std::signal(SIGPIPE, SIG_IGN);  // the end of the connection is what is waited for
    const int small = 4096;
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    for (int i = 0; i < times; ++i) {
      if (SSL_key_update(session_, SSL_KEY_UPDATE_REQUESTED) != 1 || SSL_do_handshake(session_) != 1) {
        return false;
      }
    }
    return true;
  }
  /// Says that no more will come, and waits for the end.
  void say_farewell() {
    SSL_shutdown(session_);
    read_until("more");
  }
  bool shakes_hands_again() { return SSL_renegotiate(session_) == 1 && SSL_do_handshake(session_) == 1; }
  [[nodiscard]] bool ended_in_order() const { return ended_in_order_; }

 private:
  SSL_CTX* context_;
  SSL* session_ = nullptr;
  int socket_ = -1;
  bool connected_ = false;
  bool ended_in_order_ = false;
  std::string buffer_;
};

class Tls : public ServerFixture {
 protected:
  Tls() {
    std::string name = (std::filesystem::temp_directory_path() / "lockstep-tls-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    certificate_ = folder_ / "certificate.pem";
    key_ = folder_ / "key.pem";
    write_pair(certificate_, key_, "first");
  }
  /// A listening socket whose connections hold little of what their clients do not read.
  static int listen_with_little_room() {
    const int listening = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int small = 4096;
    ::setsockopt(listening, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(listening, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listening, 8), 0);
    return listening;
  }
  void open(HttpLimits limits = {}, std::vector<int> listening = {}) {
    auto identity = TlsIdentity::load(certificate_, key_);
    ASSERT_TRUE(identity) << identity.error().message;
    identity_ = std::move(*identity);
    const Handler page = [](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.content_type = "text/plain", .body = "page"}); };
    const Handler size = [](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.body = std::to_string(exchange->request().body.size())}); };
    const Handler large = [](const std::shared_ptr<Exchange>& exchange) {
      exchange->respond({.content_type = "text/plain", .body = std::string(3'000'000, 'x') + "the end"});
    };
    const Handler never = [this](const std::shared_ptr<Exchange>& exchange) { exchange->on_abandoned([this] { left_.set_value(); }); };
    serve_with(true, {.inherited_sockets = std::move(listening), .limits = limits, .tls = identity_.get()},
               {{"/page", "GET", page}, {"/size", "POST", size}, {"/large", "GET", large}, {"/never", "GET", never}});
  }
  static bool asks_and_gets(TlsClient& client) { return client.send("GET /page HTTP/1.1\r\nHost: t\r\n\r\n") && !client.read_until("\r\n\r\npage").empty(); }

  std::filesystem::path folder_;
  std::filesystem::path certificate_;
  std::filesystem::path key_;
  std::unique_ptr<TlsIdentity> identity_;
  std::promise<void> left_;
};

TEST_F(Tls, ServesVersions12And13AndKeepsTheConnection) {
  open();
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client(port_, version);
    ASSERT_TRUE(client.connected());
    EXPECT_EQ(client.peer_name(), "first");
    EXPECT_TRUE(asks_and_gets(client));
    EXPECT_TRUE(asks_and_gets(client));
  }
}

TEST_F(Tls, ClientThatSaysFarewellWhileItWaitsHasLeft) {
  open();
  TlsClient client(port_);
  ASSERT_TRUE(client.send("GET /never HTTP/1.1\r\nHost: t\r\n\r\n"));
  client.say_farewell();
  EXPECT_EQ(left_.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
}

TEST_F(Tls, RefusesOlderVersionsAndPlainText) {
  open();
  TlsClient old(port_, TLS1_1_VERSION);
  EXPECT_FALSE(old.connected());
  HttpClient plain(port_);
  plain.send("GET /page HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(plain.read_until("page"), "");
  TlsClient sound(port_);
  EXPECT_TRUE(asks_and_gets(sound));
}

TEST_F(Tls, LargeBodiesGoBothWays) {
  open();
  TlsClient client(port_);
  const std::string body(1'000'000, 'b');
  ASSERT_TRUE(client.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n" + body));
  EXPECT_NE(client.read_until("\r\n\r\n1000000"), "");
  ASSERT_TRUE(client.send("GET /large HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"));
  EXPECT_GT(client.read_until("the end").size(), 3'000'000U);
  EXPECT_EQ(client.read_until("more"), "");
  EXPECT_TRUE(client.ended_in_order()) << "with a word, so that the client knows that nothing was cut off";
}

TEST_F(Tls, ClientThatNeverShakesHandsIsClosed) {
  HttpLimits limits;
  limits.read_timeout = 40ms;
  open(limits);
  HttpClient silent(port_);
  EXPECT_TRUE(silent.read_end());
  HttpClient half(port_);
  half.send(std::string("\x16\x03\x01\x02\x00\x01", 6));
  EXPECT_TRUE(half.read_end());
}

TEST_F(Tls, ClientThatAsksForNewKeysAndReadsNoAnswerIsClosed) {
  HttpLimits limits;
  limits.write_timeout = std::chrono::hours(1);
  open(limits, {listen_with_little_room()});
  TlsClient client(port_, TLS1_3_VERSION);
  ASSERT_TRUE(asks_and_gets(client));
  // Far more than the buffers of the sockets and of the server take: 26 bytes each way.
  EXPECT_FALSE(client.asks_for_keys(100'000));
  TlsClient other(port_);
  EXPECT_TRUE(asks_and_gets(other));
}

TEST_F(Tls, AnotherHandshakeOnAnOpenConnectionIsRefused) {
  open();
  TlsClient client(port_, TLS1_2_VERSION);
  ASSERT_TRUE(asks_and_gets(client));
  EXPECT_FALSE(client.shakes_hands_again());
}

TEST_F(Tls, ReloadCountsForNewConnectionsAndLeavesOpenOnesAlone) {
  open();
  TlsClient before(port_);
  ASSERT_TRUE(asks_and_gets(before));
  write_pair(certificate_, key_, "second");
  EXPECT_TRUE(on_asio([this] { return static_cast<bool>(identity_->reload()); }));
  TlsClient after(port_);
  ASSERT_TRUE(after.connected());
  EXPECT_EQ(after.peer_name(), "second");
  EXPECT_TRUE(asks_and_gets(after));
  EXPECT_TRUE(asks_and_gets(before));
}

TEST_F(Tls, BadPairKeepsTheOldOneAndNamesTheFile) {
  open();
  const std::filesystem::path other_certificate = folder_ / "other.pem";
  write_pair(other_certificate, key_, "other");  // a key that does not belong to the certificate
  const Status mismatch = on_asio([this] { return identity_->reload(); });
  ASSERT_FALSE(mismatch);
  EXPECT_EQ(mismatch.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(mismatch.error().message, HasSubstr(key_.string()));
  std::ofstream(certificate_) << "no certificate";
  const Status damaged = on_asio([this] { return identity_->reload(); });
  ASSERT_FALSE(damaged);
  EXPECT_THAT(damaged.error().message, HasSubstr(certificate_.string()));
  TlsClient client(port_);
  ASSERT_TRUE(client.connected());
  EXPECT_EQ(client.peer_name(), "first");
}

TEST_F(Tls, MissingFileIsAnErrorAtTheStart) {
  const auto identity = TlsIdentity::load(folder_ / "none.pem", key_);
  ASSERT_FALSE(identity);
  EXPECT_THAT(identity.error().message, HasSubstr("--tls-cert"));
}

}  // namespace
}  // namespace lockstep::daemon::testing
