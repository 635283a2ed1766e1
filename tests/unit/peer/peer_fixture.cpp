#include "tests/unit/peer/peer_fixture.hpp"

#include <sys/socket.h>
#include <sys/time.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <gtest/gtest.h>

namespace lockstep::comm {

namespace asio = boost::asio;

bool eventually(const std::function<bool()>& condition) {
  const Deadline deadline = Deadline::after(kPatience);
  while (!condition()) {
    if (!deadline.check()) {
      return false;
    }
    std::this_thread::yield();
  }
  return true;
}

GroupView view_of(int size, int index) {
  GroupView view;
  for (int member = 0; member < size; ++member) {
    view.members.push_back(member);
  }
  view.my_index = index;
  return view;
}

PeerChannelOptions test_options() {
  return {.secret = "a secret of the tests", .heartbeat_interval = std::chrono::milliseconds(10), .stall_timeout = kPatience, .single_host = true};
}

void RecordingReceiver::on_wake(std::int32_t from, std::int32_t epoch, std::int64_t step) {
  const std::lock_guard lock(mutex_);
  wakes_.push_back({from, epoch, step});
}

std::vector<RecordingReceiver::Wake> RecordingReceiver::wakes() const {
  const std::lock_guard lock(mutex_);
  return wakes_;
}

std::int64_t RecordingReceiver::newest_from(int member) const {
  std::int64_t newest = -1;
  for (const Wake& wake : wakes()) {
    newest = wake.from == member ? wake.step : newest;
  }
  return newest;
}

Member::Member(const GroupView& view, PeerChannelOptions options) : work_(io_.get_executor()) {
  Result<std::unique_ptr<PeerChannel>> channel = PeerChannel::create(io_, view, progress_, std::move(options));
  if (!channel) {
    ADD_FAILURE() << channel.error().message;
    std::abort();
  }
  channel_ = std::move(channel).value();
  thread_ = std::thread([this] { io_.run(); });
}

Member::~Member() {
  die();
}

void Member::freeze() {
  io_.stop();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Member::die() {
  freeze();
  channel_.reset();
}

Group::Group(int size, const PeerChannelOptions& options) {
  for (int index = 0; index < size; ++index) {
    members_.push_back(std::make_unique<Member>(view_of(size, index), options));
  }
}

std::vector<PeerEndpoint> Group::endpoints() {
  std::vector<PeerEndpoint> endpoints;
  for (const auto& member : members_) {
    endpoints.push_back(member->channel().endpoint());
  }
  return endpoints;
}

std::vector<Status> Group::connect(Duration limit) {
  std::vector<Status> statuses(members_.size());
  const std::vector<PeerEndpoint> all = endpoints();
  std::vector<std::thread> threads;
  for (std::size_t index = 0; index < members_.size(); ++index) {
    threads.emplace_back([&, index] { statuses[index] = members_[index]->channel().connect(all, Deadline::after(limit)); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return statuses;
}

void Group::expect_connected() {
  for (const Status& status : connect()) {
    ASSERT_TRUE(status) << status.error().message;
  }
}

HandMadePeer::HandMadePeer(const PeerEndpoint& endpoint) : socket_(io_) {
  socket_.connect({asio::ip::address_v4(endpoint.address), endpoint.port});
  // Bounds each read: a channel that wrongly stays silent fails the test instead of hanging it.
  const timeval limit{.tv_sec = std::chrono::duration_cast<std::chrono::seconds>(kPatience).count(), .tv_usec = 0};
  ::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

void HandMadePeer::write(std::span<const std::byte> bytes) {
  boost::system::error_code ignored;  // the other side may close while we write: that is what some tests are about
  asio::write(socket_, asio::buffer(bytes.data(), bytes.size()), ignored);
}

bool HandMadePeer::read(std::span<std::byte> bytes) {
  std::size_t used = 0;
  while (used < bytes.size()) {
    const ssize_t got = ::recv(socket_.native_handle(), bytes.data() + used, bytes.size() - used, 0);
    if (got <= 0) {
      return false;
    }
    used += static_cast<std::size_t>(got);
  }
  return true;
}

bool HandMadePeer::closed_by_other_side() {
  std::array<std::byte, 4096> buffer{};
  const Deadline deadline = Deadline::after(kPatience);
  while (deadline.check()) {
    const ssize_t got = ::recv(socket_.native_handle(), buffer.data(), buffer.size(), 0);
    if (got == 0 || (got < 0 && errno == ECONNRESET)) {
      return true;
    }
    if (got < 0) {
      return false;
    }
  }
  return false;
}

bool HandMadePeer::authenticate(const peer::Identity& self, int peer_member) {
  auto handshake = peer::ConnectorHandshake::create(self, peer_member);
  if (!handshake) {
    return false;
  }
  write(handshake->hello());
  peer::ChallengeBytes challenge{};
  if (!read(challenge)) {
    return false;
  }
  const Result<peer::Mac> proof = handshake->on_challenge(challenge);
  if (!proof) {
    return false;
  }
  write(*proof);
  peer::Mac confirmation{};
  if (!read(confirmation) || !handshake->on_confirmation(confirmation)) {
    return false;
  }
  sealer_.emplace(handshake->keys().send);
  opener_.emplace(handshake->keys().receive);
  return true;
}

std::vector<std::byte> HandMadePeer::sealed(const peer::Frame& frame) {
  std::vector<std::byte> bytes(peer::kFrameBytesMax);
  bytes.resize(peer::encode_frame(frame, bytes));
  sealer_->seal(bytes);
  return bytes;
}

std::optional<peer::Frame> HandMadePeer::next_frame() {
  std::array<std::byte, peer::kFrameBytesMax> buffer{};
  if (!read(std::span(buffer).first(peer::kFrameHeaderBytes))) {
    return std::nullopt;
  }
  const auto size = peer::frame_bytes(std::span(std::as_const(buffer)).first<peer::kFrameHeaderBytes>());
  if (!size || !read(std::span(buffer).subspan(peer::kFrameHeaderBytes, *size - peer::kFrameHeaderBytes))) {
    return std::nullopt;
  }
  if (!opener_->open(std::span(buffer).first(*size))) {
    return std::nullopt;
  }
  Result<peer::Frame> frame = peer::decode_frame(std::span(buffer).first(*size));
  return frame ? std::optional(std::move(frame).value()) : std::nullopt;
}

}  // namespace lockstep::comm
