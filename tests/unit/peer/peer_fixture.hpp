// What the peer channel's tests share: members that are threads of this process, and a peer that is driven by hand, byte for byte.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "comm/peer/wire/authentication.hpp"
#include "comm/peer/wire/frame.hpp"
#include "lockstep/comm/peer_channel.hpp"

namespace lockstep::comm {

/// Long enough for a loaded machine with a sanitizer; no test waits for it to pass when all is well.
inline constexpr Duration kPatience = std::chrono::seconds(30);

/// True once `condition` holds; false when it did not within kPatience.
[[nodiscard]] bool eventually(const std::function<bool()>& condition);

[[nodiscard]] GroupView view_of(int size, int index);
[[nodiscard]] PeerChannelOptions test_options();

class RecordingReceiver final : public WakeReceiver {
 public:
  struct Wake {
    std::int32_t from = 0;
    std::int32_t epoch = 0;
    std::int64_t step = 0;
  };
  void on_wake(std::int32_t from, std::int32_t epoch, std::int64_t step) override;
  [[nodiscard]] std::vector<Wake> wakes() const;
  /// The newest step heard from `member`, -1 for none.
  [[nodiscard]] std::int64_t newest_from(int member) const;

 private:
  mutable std::mutex mutex_;
  std::vector<Wake> wakes_;
};

/// One member: its own io_context on a thread of its own, as a process would have.
class Member {
 public:
  explicit Member(const GroupView& view, PeerChannelOptions options = test_options());
  ~Member();
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;

  [[nodiscard]] PeerChannel& channel() { return *channel_; }
  [[nodiscard]] StepProgress& progress() { return progress_; }
  /// What SIGSTOP does: sockets stay open, nothing moves.
  void freeze();
  /// What SIGKILL does: the sockets close, nobody says goodbye.
  void die();

 private:
  StepProgress progress_;
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::unique_ptr<PeerChannel> channel_;
  std::thread thread_;
};

class Group {
 public:
  explicit Group(int size, const PeerChannelOptions& options = test_options());
  [[nodiscard]] Member& operator[](int index) { return *members_[static_cast<std::size_t>(index)]; }
  [[nodiscard]] std::vector<PeerEndpoint> endpoints();
  /// Connects all of them at the same time; the answer of each.
  [[nodiscard]] std::vector<Status> connect(Duration limit = kPatience);
  /// Fails the test when one does not connect.
  void expect_connected();

 private:
  std::vector<std::unique_ptr<Member>> members_;
};

/// A peer without a channel: speaks only when told to. Blocking; every read and write is bounded.
class HandMadePeer {
 public:
  explicit HandMadePeer(const PeerEndpoint& endpoint);
  void write(std::span<const std::byte> bytes);
  void close() { socket_.close(); }
  /// Reads all of `bytes`; false when the other side closed first.
  [[nodiscard]] bool read(std::span<std::byte> bytes);
  /// The other side closes, whatever it sends before.
  [[nodiscard]] bool closed_by_other_side();
  /// As connector: true when the other side confirmed.
  [[nodiscard]] bool authenticate(const peer::Identity& self, int peer_member);
  [[nodiscard]] std::vector<std::byte> sealed(const peer::Frame& frame);
  /// The next frame from the other side; nullopt when it closed or the tag is wrong.
  [[nodiscard]] std::optional<peer::Frame> next_frame();

 private:
  boost::asio::io_context io_;
  boost::asio::ip::tcp::socket socket_;
  std::optional<peer::FrameSealer> sealer_;
  std::optional<peer::FrameOpener> opener_;
};

}  // namespace lockstep::comm
