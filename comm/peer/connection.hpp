// Connection: an authenticated socket to one peer, carrying sealed frames.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/ip/tcp.hpp>

#include "comm/peer/wire/authentication.hpp"
#include "comm/peer/wire/frame.hpp"

namespace lockstep::comm::peer {

/// What a connection tells its owner, on the socket's strand.
struct ConnectionEvents {
  std::function<void(const Frame& frame)> on_frame;
  /// Once, after the last frame; the text says why.
  std::function<void(const std::string& cause)> on_closed;
  /// `idle` may have become true.
  std::function<void()> on_idle;
};

/// Waiting frames need no queue: of heartbeats, wakes and questions only the newest matters, and failure and goodbye are said once. A report is sent part by
/// part, each after all else that waits; a newer one takes its place, last words end it. So a peer that does not read (stopped) costs a fixed amount of memory
/// and one report. Ownership  its own handlers keep it alive until the socket closes.      Threads  the socket's strand.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, const LinkKeys& keys, ConnectionEvents events);

  void start();
  void send(const HeartbeatFrame& frame);
  void send(const WakeFrame& frame);
  void send(const FailureFrame& frame);
  void send(const GoodbyeFrame& frame);
  void send(const ReportRequestFrame& frame);
  void send_report(std::uint32_t number, std::vector<std::byte> bytes);
  /// Nothing but a report is waiting or being written, or nothing can be written any more.
  [[nodiscard]] bool idle() const;
  /// No more events after it.
  void close();

 private:
  void read_header();
  void read_rest(std::size_t size);
  void on_whole_frame(std::size_t size);
  void write_next();
  [[nodiscard]] std::size_t encode_waiting();
  [[nodiscard]] std::optional<ReportPartFrame> next_report_part();
  void end(const std::string& cause);

  boost::asio::ip::tcp::socket socket_;
  FrameSealer sealer_;
  FrameOpener opener_;
  ConnectionEvents events_;
  bool open_ = true;
  bool writing_ = false;
  bool write_failed_ = false;

  std::optional<WakeFrame> wake_;
  std::optional<HeartbeatFrame> heartbeat_;
  std::optional<FailureFrame> failure_;
  std::optional<GoodbyeFrame> goodbye_;
  std::optional<ReportRequestFrame> report_request_;
  bool failure_sent_ = false;

  struct Report {
    std::uint32_t number = 0;
    std::vector<std::byte> bytes;
    std::size_t sent = 0;
  };
  std::optional<Report> report_;

  std::array<std::byte, kFrameBytesMax> read_buffer_{};
  std::array<std::byte, 5 * kShortFrameBytesMax + kFrameBytesMax> write_buffer_{};  ///< one frame of each kind
};

}  // namespace lockstep::comm::peer
