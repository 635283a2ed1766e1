#include "comm/peer/connection.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <fmt/format.h>

namespace lockstep::comm::peer {

namespace asio = boost::asio;
using boost::system::error_code;

Connection::Connection(asio::ip::tcp::socket socket, const LinkKeys& keys, ConnectionEvents events)
    : socket_(std::move(socket)), sealer_(keys.send), opener_(keys.receive), events_(std::move(events)) {}

void Connection::start() {
  read_header();
}

void Connection::send(const HeartbeatFrame& frame) {
  heartbeat_ = frame;
  write_next();
}

void Connection::send(const WakeFrame& frame) {
  if (wake_ && std::tie(wake_->epoch, wake_->step) > std::tie(frame.epoch, frame.step)) {
    return;
  }
  wake_ = frame;
  write_next();
}

void Connection::send(const FailureFrame& frame) {
  if (!std::exchange(failure_sent_, true)) {
    report_.reset();
    failure_ = frame;
    write_next();
  }
}

void Connection::send(const GoodbyeFrame& frame) {
  report_.reset();
  goodbye_ = frame;
  write_next();
}

void Connection::send(const ReportRequestFrame& frame) {
  report_request_ = frame;
  write_next();
}

void Connection::send_report(std::uint32_t number, std::vector<std::byte> bytes) {
  if (!failure_sent_ && !goodbye_) {
    report_ = Report{.number = number, .bytes = std::move(bytes)};
    write_next();
  }
}

bool Connection::idle() const {
  return !open_ || write_failed_ || (!writing_ && !wake_ && !heartbeat_ && !failure_ && !goodbye_ && !report_request_);
}

void Connection::close() {
  open_ = false;
  error_code ignored;
  socket_.close(ignored);
}

void Connection::end(const std::string& cause) {
  if (open_) {
    close();
    events_.on_closed(cause);
    events_.on_idle();
  }
}

void Connection::read_header() {
  asio::async_read(socket_, asio::buffer(read_buffer_.data(), kFrameHeaderBytes), [self = shared_from_this()](const error_code& error, std::size_t) {
    if (!self->open_) {
      return;
    }
    if (error) {
      self->end(error == asio::error::eof ? "it closed its connection without a goodbye (the process ended)"
                                          : fmt::format("its connection broke ({})", error.message()));
      return;
    }
    const auto size = frame_bytes(std::span(std::as_const(self->read_buffer_)).first<kFrameHeaderBytes>());
    if (!size) {
      self->end("it sent a frame of unknown kind on an authenticated connection");
      return;
    }
    self->read_rest(*size);
  });
}

void Connection::read_rest(std::size_t size) {
  asio::async_read(socket_, asio::buffer(read_buffer_.data() + kFrameHeaderBytes, size - kFrameHeaderBytes),
                   [self = shared_from_this(), size](const error_code& error, std::size_t) {
                     if (!self->open_) {
                       return;
                     }
                     if (error) {
                       self->end(fmt::format("its connection broke within a frame ({})", error.message()));
                       return;
                     }
                     self->on_whole_frame(size);
                   });
}

void Connection::on_whole_frame(std::size_t size) {
  const std::span<const std::byte> bytes = std::span(std::as_const(read_buffer_)).first(size);
  if (!opener_.open(bytes)) {
    end("a frame on its connection was forged, repeated or damaged (authentication tag differs)");
    return;
  }
  const Result<Frame> frame = decode_frame(bytes);
  if (!frame) {
    end(fmt::format("it sent a malformed frame: {}", frame.error().message));
    return;
  }
  events_.on_frame(*frame);
  if (open_) {
    read_header();
  }
}

std::size_t Connection::encode_waiting() {
  std::size_t used = 0;
  const auto append = [&](auto& slot) {
    if (slot) {
      const std::span<std::byte> room = std::span(write_buffer_).subspan(used);
      const std::size_t size = encode_frame(Frame{*std::exchange(slot, std::nullopt)}, room);
      sealer_.seal(room.first(size));
      used += size;
    }
  };
  std::optional<ReportPartFrame> part = next_report_part();
  // Wakes first, as someone waits for them; goodbye last, as it says that nothing follows.
  append(wake_);
  append(heartbeat_);
  append(failure_);
  append(report_request_);
  append(part);
  append(goodbye_);
  return used;
}

std::optional<ReportPartFrame> Connection::next_report_part() {
  if (!report_) {
    return std::nullopt;
  }
  const std::size_t size = std::min(kReportPartBytesMax, report_->bytes.size() - report_->sent);
  const std::span<const std::byte> content = std::span(std::as_const(report_->bytes)).subspan(report_->sent, size);
  report_->sent += size;
  ReportPartFrame part{.number = report_->number, .last = report_->sent == report_->bytes.size(), .content = {content.begin(), content.end()}};
  if (part.last) {
    report_.reset();
  }
  return part;
}

void Connection::write_next() {
  if (!open_ || writing_ || write_failed_) {
    return;
  }
  const std::size_t size = encode_waiting();
  if (size == 0) {
    events_.on_idle();
    return;
  }
  writing_ = true;
  asio::async_write(socket_, asio::buffer(write_buffer_.data(), size), [self = shared_from_this()](const error_code& error, std::size_t) {
    if (error) {
      // No verdict here: the peer's last words, and then the end of its stream, come through the reading side.
      self->write_failed_ = true;
      self->events_.on_idle();
      return;
    }
    self->writing_ = false;
    self->write_next();
  });
}

}  // namespace lockstep::comm::peer
