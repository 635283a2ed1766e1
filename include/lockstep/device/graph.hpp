// Graph: work of a stream that is recorded once and launched as one piece, as often as wanted.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "lockstep/core/result.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::device {

/// Recorded work. Addresses, sizes and numbers are those of its recording; what lies at the addresses is read at each launch.
/// Ownership  the device's form of it; what the work reads and writes outlives it. Destroyed when no launch is under way.      Threads  one at a time.
class Graph {
 public:
  virtual ~Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  /// All of it runs after what was enqueued on `stream` before; called from inside a task of that stream.      Cost  one call of the driver; no allocation.
  virtual void launch(Stream& stream) = 0;

 protected:
  Graph() = default;
};

/// Memory of the host with a copy on the device: ops that are given spans of it take them from the copy, as it is when they run. The only spans of the host
/// that recorded ops may be given, since what they would read of others is not read again.
/// Ownership  both memories; outlives the work that uses them.      Threads  made and destroyed while no ops of the device run.
class GraphInputs {
 public:
  virtual ~GraphInputs() = default;
  GraphInputs(const GraphInputs&) = delete;
  GraphInputs& operator=(const GraphInputs&) = delete;
  /// Zeroed. Written while no upload of it is under way.
  [[nodiscard]] virtual std::span<std::byte> host() const = 0;
  /// Enqueues that `bytes` from `offset` on come to the device; called from inside a task of `stream`, before the work that reads them.
  virtual void upload(Stream& stream, std::size_t offset, std::size_t bytes) = 0;

 protected:
  GraphInputs() = default;
};

/// Makes graphs, for devices that have them (Device::graphs).      Ownership  the device's.      Threads  as streams.
class GraphMaker {
 public:
  virtual ~GraphMaker() = default;
  GraphMaker(const GraphMaker&) = delete;
  GraphMaker& operator=(const GraphMaker&) = delete;
  /// Calls `body`, and records what its ops would run on `stream` instead of running it. What `body` does must have been done once before, unrecorded: kernels
  /// are loaded by then. Nothing is allocated and nobody waited for in it. Errors  kInternal: CUDA's, by name; a span of the host outside GraphInputs;
  /// `stream`'s or `body`'s own. The stream is usable as before.
  [[nodiscard]] virtual Result<std::unique_ptr<Graph>> capture(Stream& stream, Task body) = 0;
  /// Errors  kResourceExhausted.      Cost  as Device::allocate: for the start.
  [[nodiscard]] virtual Result<std::unique_ptr<GraphInputs>> make_inputs(std::size_t bytes) = 0;

 protected:
  GraphMaker() = default;
};

}  // namespace lockstep::device
