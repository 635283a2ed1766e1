// DeviceMessages: messages between the memory of the members' devices, in the order of each one's stream.
#pragma once

#include <cstddef>
#include <span>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::comm {

/// A part of a device's memory; 0 bytes are no message.
struct DeviceMessage {
  std::byte* data = nullptr;
  std::size_t bytes = 0;
};

/// Who started an exchange, and knows what its messages are once the lists of all members have come.
class DeviceMessageLayout {
 public:
  virtual ~DeviceMessageLayout() = default;
  DeviceMessageLayout(const DeviceMessageLayout&) = delete;
  DeviceMessageLayout& operator=(const DeviceMessageLayout&) = delete;
  /// Called once, from within a call of the communicator. `list_bytes` [members], by source, as they came; `send` and `receive` [members], empty, are to be
  /// filled; own entries are left alone. Both sides of a pair name the same number of bytes.      Errors  end the exchange: its wait has them.
  [[nodiscard]] virtual Status lay_out(std::span<const std::size_t> list_bytes, std::span<DeviceMessage> send, std::span<DeviceMessage> receive) = 0;

 protected:
  DeviceMessageLayout() = default;
};

/// Everything is borrowed until wait_until_enqueued; the messages' memory until the stream has come past them.
struct DeviceAllToAll {
  AllToAll lists{};                       ///< in the host's memory, told first, from host to host; with no spans at all nothing is told
  int lane = 0;                           ///< the same on all members: messages of different lanes may travel side by side
  device::Stream* stream = nullptr;       ///< messages are read and written when it comes to them
  DeviceMessageLayout* layout = nullptr;  ///< what the messages are
};

class DeviceCollectives;

/// A communicator's other side, where it has one. Started in one order with all else that the communicator starts; `test` is the communicator's, and true when
/// the wait would not wait.      Threads  the communicator's.
class DeviceMessages {
 public:
  virtual ~DeviceMessages() = default;
  DeviceMessages(const DeviceMessages&) = delete;
  DeviceMessages& operator=(const DeviceMessages&) = delete;
  /// Errors  as of start_all_to_all.      Cost  nothing on the device yet.
  [[nodiscard]] virtual Result<Ticket> start_device_all_to_all(const DeviceAllToAll& exchange) = 0;
  /// Until the messages have their place in the stream: work that is enqueued there afterwards finds them. The host does not wait for the device.
  /// Errors  as of wait_all_to_all, and those of the layout.
  [[nodiscard]] virtual Status wait_until_enqueued(Ticket ticket, const Deadline& deadline) = 0;
  /// Looks after messages that are enqueued: for who waits for a stream.      Errors  what has become of them; this object is unusable from then on.
  [[nodiscard]] virtual Status check() = 0;
  /// Makes the collectives of fixed sizes (lockstep/comm/device_collectives.hpp), where graphs are wanted: on all members, or by the options on none. The
  /// second call has what the first one made. Collective, before the first step.      Errors  kUnsupported, kTimeout, kPeerLost, kInternal: on all members.
  [[nodiscard]] virtual Result<DeviceCollectives*> open_collectives(const Deadline& deadline) = 0;

 protected:
  DeviceMessages() = default;
};

}  // namespace lockstep::comm
