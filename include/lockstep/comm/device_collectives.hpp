// DeviceCollectives: exchanges of fixed sizes between the devices' memory, which may be part of a graph.
#pragma once

#include <cstddef>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/core/result.hpp"
#include "lockstep/device/graph.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::comm {

/// Memory of the device, in blocks of one size, which is the same on all members. The stream orders its use; in a graph the addresses are those of the capture.
struct DeviceBlocks {
  device::Stream* stream = nullptr;
  const std::byte* send = nullptr;  ///< all-gather: one block; may be this member's in `receive`. All-to-all: [members] blocks, by destination
  std::byte* receive = nullptr;     ///< [members] blocks, by source, the own one among them; overlaps nothing else that is sent
  std::size_t bytes = 0;            ///< of one block; 0: nothing is done
};

/// On a channel of their own, beside all other operations of the communicator that they belong to, and in one order with them: every member makes the same
/// calls, between the same starts of other operations. The host does not wait for the device; it waits, at most until the deadline, for what was started
/// earlier and is not launched yet. How graphs of them are made and used, by all members alike:
///   1. DeviceMessages::open_collectives, before the first step; collective.
///   2. The work that is to be captured runs once uncaptured: what connects peers cannot be captured.
///   3. GraphMaker::capture with a body that calls all_gather and all_to_all on the stream that is captured, the same calls in the same order on all members.
///      Nothing travels. After it take_captured. A member whose capture has failed makes no more of them.
///   4. Members agree (an all-reduce) on the graphs that all have; the others' are destroyed and never launched.
///   5. launch instead of Graph::launch: collective, the graphs of one capture on all members. No member may make the calls themselves instead.
///   6. Graphs are destroyed before the communicator is: its end waits for them, for a limited time, and the members' ends for each other.
/// Who waits for the stream looks after what is enqueued by DeviceMessages::check.
/// Ownership  the communicator's.      Threads  the communicator's; from inside tasks of the stream where that is on the calling thread.
/// Errors  of all: kTimeout, kPeerLost, kCancelled (the deadline's watch), kInternal (CUDA's and NCCL's, by name); the communicator is unusable from then on,
///         after one in a capture these collectives alone. A graph that was under way ends without results.
class DeviceCollectives {
 public:
  virtual ~DeviceCollectives() = default;
  DeviceCollectives(const DeviceCollectives&) = delete;
  DeviceCollectives& operator=(const DeviceCollectives&) = delete;
  /// Everyone's block to everyone.      Cost  (members - 1) * bytes received; one launch.      Source  NCCL 2.28 user guide, "AllGather".
  [[nodiscard]] virtual Status all_gather(const DeviceBlocks& blocks, const Deadline& deadline) = 0;
  /// A block of its own to each.      Cost  (members - 1) * bytes each way; one launch.      Source  NCCL 2.28 user guide, "Point-to-point communication".
  [[nodiscard]] virtual Status all_to_all(const DeviceBlocks& blocks, const Deadline& deadline) = 0;
  /// What one launch of the graph moves that was captured since the last call: for `launch`. A capture counts nothing in device_traffic().
  [[nodiscard]] virtual DeviceTraffic take_captured() = 0;
  /// Launches a graph in the one order of all launches, and counts `captured`.      Cost  one call of the driver; no allocation.
  [[nodiscard]] virtual Status launch(device::Graph& graph, const DeviceTraffic& captured, device::Stream& stream, const Deadline& deadline) = 0;

 protected:
  DeviceCollectives() = default;
};

}  // namespace lockstep::comm
