// Listener: a socket that accepts clients, however it came to be. Private to daemon/http.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>

#include "lockstep/core/result.hpp"

namespace lockstep::daemon {

/// The file of a Unix socket. The destructor removes it, where it is still the one that was made.
class SocketFile {
 public:
  SocketFile() = default;
  explicit SocketFile(std::filesystem::path path);
  ~SocketFile() { remove(); }
  SocketFile(SocketFile&& other) noexcept;
  SocketFile& operator=(SocketFile&& other) noexcept;
  SocketFile(const SocketFile&) = delete;
  SocketFile& operator=(const SocketFile&) = delete;

  /// Threads  any, one at a time.
  void remove();

 private:
  std::filesystem::path path_;
  std::uint64_t inode_ = 0;
  std::uint64_t device_ = 0;
};

struct Listener {
  using Acceptor = boost::asio::basic_socket_acceptor<boost::asio::generic::stream_protocol>;
  Acceptor acceptor;
  std::string name;        ///< "127.0.0.1:8000", "unix:/run/lockstep.sock"
  std::uint16_t port = 0;  ///< 0: a Unix socket
  SocketFile file{};       ///< of a Unix socket of ours
};

struct PortAddress {
  std::string host;
  std::uint16_t port = 0;         ///< 0: any free one
  const char* option = "--port";  ///< in error texts
  bool shared = false;            ///< other processes may listen on the port too
};

/// Errors  kInvalidArgument naming host and port.
[[nodiscard]] Result<Listener> listen_on_port(boost::asio::io_context& io, const PortAddress& address);
/// The same but for the listening. A port that is taken is no error.
[[nodiscard]] Status check_port(boost::asio::io_context& io, const PortAddress& address);

/// Readable and writable by owner and group. A file that a dead process left is replaced.
/// Errors  kInvalidArgument naming the path: too long, no socket, somebody listens there, or the folder does not allow it.
[[nodiscard]] Result<Listener> listen_on_path(boost::asio::io_context& io, const std::filesystem::path& path);

/// As far as can be told without making the file. Somebody who listens there is no error.
[[nodiscard]] Status check_path(const std::filesystem::path& path);

/// Takes over a listening stream socket.      Errors  kInvalidArgument: `descriptor` is none, or of another family than IPv4, IPv6 and Unix.
[[nodiscard]] Result<Listener> adopt_socket(boost::asio::io_context& io, int descriptor);

/// "127.0.0.1:8000", "[::1]:8000", or "unix".
[[nodiscard]] std::string endpoint_name(const boost::asio::generic::stream_protocol::endpoint& endpoint);

}  // namespace lockstep::daemon
