// Communicator: the collectives between the ranks of a group, started and waited for separately.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "lockstep/comm/launch.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/core/result.hpp"

namespace lockstep::comm {

enum class ReduceOp { kSum, kMin, kMax };

/// One started operation. Valid until `wait` returns for it.
struct Ticket {
  std::uint64_t id = 0;
};

/// One all-to-all of byte messages between members. Both sides know from the agreed plan which pairs talk: an empty `send` to a peer means that the peer posts
/// an empty `receive` for us. Buffers are borrowed until `wait`.
struct AllToAll {
  std::span<const std::span<const std::byte>> send;  ///< [members], by destination; own entry is copied locally
  std::span<const std::span<std::byte>> receive;     ///< [members], by source, at capacity
};

/// Bytes of messages that a device of its own has sent to and received from other members' devices, whatever they were for.
struct DeviceTraffic {
  std::uint64_t sent_bytes = 0;
  std::uint64_t received_bytes = 0;
};

class DeviceMessages;

/// The members of one group, and the collectives between them. Every member starts the same operations in the same order; an idle one too, with zeros or
/// nothing to send. Ownership  owns the backend's handle and the buffers that a failed operation may still write to. Threads    one at a time; which thread may
/// change between calls.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  [[nodiscard]] virtual int rank() const = 0;  ///< member index
  [[nodiscard]] virtual int size() const = 0;

  /// Starts an element-wise reduction over all members; `wait` ends it.
  /// Shape   [n], the same n >= 1 on every rank.      Units  the caller's; a sum beyond int32 wraps.
  /// Cost    4 * n bytes per rank and direction, one round.      Source  MPI 4.0, "All-Reduce".
  [[nodiscard]] virtual Result<Ticket> start_all_reduce(std::span<const std::int32_t> values, ReduceOp op) = 0;
  /// Starts an exchange of messages of different sizes; `wait` ends it and tells how many bytes came.
  [[nodiscard]] virtual Result<Ticket> start_all_to_all(const AllToAll& exchange) = 0;

  /// Gives the library a chance to progress; true when `wait` would not block.
  [[nodiscard]] virtual Result<bool> test(Ticket ticket) = 0;
  /// Ends an all-reduce.      Errors  kTimeout, kPeerLost, kCancelled (the deadline's watch): `result` is unchanged and this object unusable from then on.
  [[nodiscard]] virtual Status wait(Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline) = 0;
  /// Ends an all-to-all; `received_bytes` [members], by source.      Errors  as above, and kDiverged: a peer sent more than our capacity.
  [[nodiscard]] virtual Status wait_all_to_all(Ticket ticket, std::span<std::size_t> received_bytes, const Deadline& deadline) = 0;

  [[nodiscard]] virtual std::string_view transport() const = 0;
  /// What carries all-reduces, where a backend may choose; and for the start's log why, empty where there was no choice.
  [[nodiscard]] virtual std::string_view agreement_transport() const { return transport(); }
  [[nodiscard]] virtual std::string agreement_reason() const { return {}; }
  /// Messages between the devices' own memory; null where there are none: then rows travel through the host's.
  [[nodiscard]] virtual DeviceMessages* device_messages() { return nullptr; }
  /// Threads  any.
  [[nodiscard]] virtual DeviceTraffic device_traffic() const { return {}; }

 protected:
  Communicator() = default;
};

/// Who carries all-reduces in a backend of devices, which has a communicator of the hosts beside it.
enum class AgreementTransport {
  kMeasured,  ///< the faster one, measured at the start; all ranks take the same
  kDevice,
  kHost,
};

struct CommOptions {
  LaunchInfo launch;
  Duration start_timeout = std::chrono::seconds(60);  ///< bounds what is blocking in the backend's start
  AgreementTransport agreement = AgreementTransport::kMeasured;
  std::string plugin_folder{};                   ///< where backends that are plugins lie; empty is where they are installed
  std::function<std::int64_t()> current_step{};  ///< names the step in a device's errors; none: they name none
};

/// One line of the table of backends.
struct CommBackend {
  std::string_view name;
  bool device_buffers = false;  ///< has DeviceMessages
  bool multi_process = false;
  bool needs_device = false;  ///< a GPU for each rank, and a plugin
  Result<std::unique_ptr<Communicator>> (*make)(const CommOptions& options) = nullptr;
  /// Where the backend works beside one of the hosts: makes it over that one, which it owns from then on. Null elsewhere.
  Result<std::unique_ptr<Communicator>> (*make_over)(std::unique_ptr<Communicator> control, const CommOptions& options) = nullptr;
  /// Whether `make_over` could work on this rank. Null where nothing can be missing.      Errors  kUnsupported: what is missing, and what to do.
  Status (*probe)(const CommOptions& options) = nullptr;
};
[[nodiscard]] std::span<const CommBackend> comm_backends();
/// Errors  kInvalidArgument: an unknown name, with the known ones.
[[nodiscard]] Result<std::unique_ptr<Communicator>> make_communicator(std::string_view name, const CommOptions& options);

}  // namespace lockstep::comm
