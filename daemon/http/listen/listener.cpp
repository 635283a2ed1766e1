#include "daemon/http/listen/listener.hpp"

#include <cstring>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;
using Generic = boost::asio::generic::stream_protocol;
using Unix = boost::asio::local::stream_protocol;

Error unusable(const std::filesystem::path& path, std::string_view why, std::string_view advice) {
  return {ErrorCode::kInvalidArgument, fmt::format("--unix-socket {}: {}; {}", path.string(), why, advice)};
}

constexpr const char* kFolderAdvice = "choose a path in a folder that this user may write to";

Error occupied(const std::filesystem::path& path) {
  return unusable(path, "something else than a socket is there", "choose another path, or remove it");
}

Status check_length(const std::filesystem::path& path) {
  if (path.string().size() >= sizeof(sockaddr_un::sun_path)) {
    return unusable(path, "is too long for a socket", fmt::format("expected at most {} bytes", sizeof(sockaddr_un::sun_path) - 1));
  }
  return {};
}

Result<tcp::endpoint> resolve(boost::asio::io_context& io, const PortAddress& address) {
  error_code error;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(address.host, "", tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--host {}: {}; expected an address of this machine", address.host, error.message())};
  }
  return tcp::endpoint(found.begin()->endpoint().address(), address.port);
}

error_code bind(Listener::Acceptor& acceptor, const tcp::endpoint& endpoint, bool shared) {
  error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) {
    acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  }
  if (!error && shared) {
    acceptor.set_option(boost::asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>(true), error);
  }
  if (!error) {
    acceptor.bind(endpoint, error);
  }
  return error;
}

Error cannot_listen(const PortAddress& address, const tcp::endpoint& endpoint, const error_code& error) {
  return {ErrorCode::kInvalidArgument, fmt::format("{}: cannot listen on {} port {}: {}; choose another port, or another --host", address.option,
                                                   endpoint.address().to_string(), address.port, error.message())};
}

/// Makes way for a socket at `path`: nothing is there, or what a process left that is gone.
Status clear_path(boost::asio::io_context& io, const std::filesystem::path& path) {
  struct stat facts {};
  if (::lstat(path.c_str(), &facts) != 0) {
    return {};
  }
  if (!S_ISSOCK(facts.st_mode)) {
    return occupied(path);
  }
  Unix::socket probe(io);
  error_code error;
  probe.connect(Unix::endpoint(path.string()), error);
  if (!error) {
    return unusable(path, "another process listens there", "stop it, or choose another path");
  }
  if (error != boost::asio::error::connection_refused) {
    return unusable(path, error.message(), "choose another path, or remove it");
  }
  if (::unlink(path.c_str()) != 0) {
    return unusable(path, fmt::format("the old socket cannot be removed: {}", std::strerror(errno)), "choose another path, or remove it");
  }
  return {};
}

/// Between bind and chmod others could connect: so the file is made with the right mode at once.
class ScopedUmask {
 public:
  explicit ScopedUmask(mode_t mask) : old_(::umask(mask)) {}
  ~ScopedUmask() { ::umask(old_); }
  ScopedUmask(const ScopedUmask&) = delete;
  ScopedUmask& operator=(const ScopedUmask&) = delete;

 private:
  mode_t old_;
};

std::uint16_t port_of(const Generic::endpoint& endpoint) {
  tcp::endpoint address;
  if (endpoint.protocol().family() == AF_UNIX || endpoint.size() > address.capacity()) {
    return 0;
  }
  std::memcpy(address.data(), endpoint.data(), endpoint.size());
  return address.port();
}

}  // namespace

SocketFile::SocketFile(std::filesystem::path path) : path_(std::move(path)) {
  struct stat facts {};
  if (::lstat(path_.c_str(), &facts) == 0) {
    inode_ = facts.st_ino;
    device_ = facts.st_dev;
  }
}

SocketFile::SocketFile(SocketFile&& other) noexcept
    : path_(std::exchange(other.path_, {})), inode_(std::exchange(other.inode_, 0)), device_(std::exchange(other.device_, 0)) {}

SocketFile& SocketFile::operator=(SocketFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(inode_, other.inode_);
  std::swap(device_, other.device_);
  return *this;
}

void SocketFile::remove() {
  struct stat facts {};
  if (!path_.empty() && ::lstat(path_.c_str(), &facts) == 0 && facts.st_ino == inode_ && facts.st_dev == device_) {
    ::unlink(path_.c_str());
  }
  path_.clear();
}

Result<Listener> listen_on_port(boost::asio::io_context& io, const PortAddress& address) {
  LOCKSTEP_ASSIGN_OR_RETURN(const tcp::endpoint endpoint, resolve(io, address));
  Listener listener{.acceptor = Listener::Acceptor(io), .name = ""};
  Listener::Acceptor& acceptor = listener.acceptor;
  error_code error = bind(acceptor, endpoint, address.shared);
  if (!error) {
    acceptor.listen(boost::asio::socket_base::max_listen_connections, error);
  }
  if (error) {
    return cannot_listen(address, endpoint, error);
  }
  listener.name = endpoint_name(acceptor.local_endpoint());
  listener.port = port_of(acceptor.local_endpoint());
  return listener;
}

Status check_port(boost::asio::io_context& io, const PortAddress& address) {
  LOCKSTEP_ASSIGN_OR_RETURN(const tcp::endpoint endpoint, resolve(io, address));
  Listener::Acceptor acceptor(io);
  const error_code error = bind(acceptor, endpoint, address.shared);
  return error && error != boost::asio::error::address_in_use ? cannot_listen(address, endpoint, error) : Status();
}

Status check_path(const std::filesystem::path& path) {
  LOCKSTEP_RETURN_IF_ERROR(check_length(path));
  struct stat facts {};
  if (::lstat(path.c_str(), &facts) == 0 && !S_ISSOCK(facts.st_mode)) {
    return occupied(path);
  }
  // The dot makes sure that it is a folder.
  const std::filesystem::path folder = (path.has_parent_path() ? path.parent_path() : std::filesystem::path(".")) / ".";
  return ::access(folder.c_str(), W_OK | X_OK) == 0 ? Status() : unusable(path, std::strerror(errno), kFolderAdvice);
}

Result<Listener> listen_on_path(boost::asio::io_context& io, const std::filesystem::path& path) {
  LOCKSTEP_RETURN_IF_ERROR(check_length(path));
  LOCKSTEP_RETURN_IF_ERROR(clear_path(io, path));
  Listener listener{.acceptor = Listener::Acceptor(io), .name = "unix:" + path.string()};
  error_code error;
  listener.acceptor.open(Unix(), error);
  if (!error) {
    const ScopedUmask owner_and_group(S_IXUSR | S_IXGRP | S_IRWXO);
    listener.acceptor.bind(Unix::endpoint(path.string()), error);
  }
  if (!error) {
    listener.file = SocketFile(path);
    listener.acceptor.listen(boost::asio::socket_base::max_listen_connections, error);
  }
  if (error) {
    return unusable(path, error.message(), kFolderAdvice);
  }
  return listener;
}

Result<Listener> adopt_socket(boost::asio::io_context& io, int descriptor) {
  int type = 0;
  int listening = 0;
  socklen_t length = sizeof type;
  const bool stream = ::getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM;
  length = sizeof listening;
  if (!stream || ::getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0 || listening == 0) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("LISTEN_FDS: descriptor {} is no listening stream socket; expected ListenStream= in the socket unit", descriptor)};
  }
  Generic::endpoint endpoint;
  auto size = static_cast<socklen_t>(endpoint.capacity());
  const int named = ::getsockname(descriptor, endpoint.data(), &size);
  const int family = endpoint.data()->sa_family;
  if (named != 0 || (family != AF_INET && family != AF_INET6 && family != AF_UNIX)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("LISTEN_FDS: descriptor {} has address family {}; expected IPv4, IPv6 or a Unix socket", descriptor, family)};
  }
  endpoint.resize(size);
  Listener listener{.acceptor = Listener::Acceptor(io), .name = endpoint_name(endpoint), .port = port_of(endpoint)};
  error_code error;
  listener.acceptor.assign(Generic(family, 0), descriptor, error);
  if (error) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("LISTEN_FDS: descriptor {} cannot be used: {}", descriptor, error.message())};
  }
  return listener;
}

std::string endpoint_name(const Generic::endpoint& endpoint) {
  tcp::endpoint address;
  if (endpoint.protocol().family() == AF_UNIX || endpoint.size() > address.capacity()) {
    return "unix";
  }
  std::memcpy(address.data(), endpoint.data(), endpoint.size());
  return address.address().is_v6() ? fmt::format("[{}]:{}", address.address().to_string(), address.port())
                                   : fmt::format("{}:{}", address.address().to_string(), address.port());
}

}  // namespace lockstep::daemon
