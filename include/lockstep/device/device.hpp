// Device: where a rank computes. Makes streams, events, memory and ops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "lockstep/core/result.hpp"
#include "lockstep/device/ops.hpp"
#include "lockstep/device/stream.hpp"
#include "lockstep/device/stream_times.hpp"

namespace lockstep::device {

class GraphMaker;

/// A zeroed allocation of a device, aligned to 64 bytes at least; freed by the destructor: work that uses it has to be done by then.
/// Threads  a plain value owner.
class Buffer {
 public:
  using Release = void (*)(void* owner, void* data, std::size_t bytes);
  Buffer() = default;
  /// `owner` is what `release` is called with, null where it needs none; it outlives the buffer.
  Buffer(void* data, std::size_t bytes, Release release, void* owner = nullptr) : data_(data), bytes_(bytes), release_(release), owner_(owner) {}
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();
  template <typename T>
  [[nodiscard]] T* as() const {
    return static_cast<T*>(data_);
  }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Release release_ = nullptr;
  void* owner_ = nullptr;
};

struct DeviceOptions {
  int local_rank = 0;
  int local_size = 1;                            ///< ranks on this host
  int core_count = 1;                            ///< this rank's share of the host's cores
  bool share_device = false;                     ///< another rank may compute on the same device
  std::int64_t memory_limit_bytes = 0;           ///< device memory that `allocate` may hold at once; 0 is all that there is
  bool batch_invariant = false;                  ///< a row's results are the same bits whatever rows are beside it, where that costs speed; on a host always so
  std::string plugin_folder{};                   ///< where backends that are plugins lie; empty is where they are installed
  std::function<std::int64_t()> current_step{};  ///< names the step in a device's errors; none: they name none
};

/// Which of two streams the device serves first, where both could go on. Threads of the host have no such order.
enum class StreamPriority { kNormal, kHigh };

/// What a device holds and has done so far.
struct DeviceUsage {
  std::int64_t memory_total_bytes = 0;     ///< that the device has; 0: its memory is the host's, and nothing here is counted
  std::int64_t memory_free_bytes = 0;      ///< that `allocate` may still give: less than what is free where a limit is set
  std::int64_t memory_used_bytes = 0;      ///< in buffers now
  std::int64_t memory_used_max_bytes = 0;  ///< the most there ever were
  std::int64_t memory_reserved_bytes = 0;  ///< taken from the device by this process, for buffers now and later
  std::uint64_t launches = 0;              ///< of kernels, those in graphs too
  std::uint64_t graph_launches = 0;        ///< of graphs, each one call of the host
  std::uint64_t host_waits = 0;            ///< times that a thread of the host had to wait for the device
};

/// One device of one rank.      Ownership  owns nothing that it made; outlives it all.      Threads  `allocate`, `make_*`: any.
class Device {
 public:
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  /// Memory for ops. The host may look into it only where `host_memory` is true: elsewhere Ops::upload and download are the way.
  [[nodiscard]] virtual Result<Buffer> allocate(std::size_t bytes) = 0;
  /// Memory of the host, zeroed, that Ops::upload and download copy from and to without a detour.
  [[nodiscard]] virtual Result<Buffer> allocate_host(std::size_t bytes) = 0;
  /// A stream that runs work on its own (a thread, a CUDA stream).
  [[nodiscard]] virtual Result<std::unique_ptr<Stream>> make_stream(std::string_view name, StreamPriority priority) = 0;
  [[nodiscard]] Result<std::unique_ptr<Stream>> make_stream(std::string_view name) { return make_stream(name, StreamPriority::kNormal); }
  /// A stream that runs each task on the calling thread at once; on a host its events are complete when recorded. For steps with one micro-batch.
  [[nodiscard]] virtual std::unique_ptr<Stream> make_inline_stream(std::string_view name) = 0;
  [[nodiscard]] virtual std::unique_ptr<Event> make_event() = 0;
  [[nodiscard]] virtual std::unique_ptr<Signal> make_signal() = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<Ops>> make_ops() = 0;
  [[nodiscard]] virtual std::string_view name() const = 0;
  /// Whether the host may look into what `allocate` gives, and streams run tasks when their turn comes. False: a stream calls a task when it is enqueued, to
  /// launch what runs later, so what a task reads of the host's memory has to be there by then.
  [[nodiscard]] virtual bool host_memory() const { return true; }
  /// What records work as graphs (lockstep/device/graph.hpp); null: this device has none.
  [[nodiscard]] virtual GraphMaker* graphs() { return nullptr; }
  /// Times of its streams (lockstep/device/stream_times.hpp), for `points` of them; null: this device has none.
  /// Errors  kInternal, kResourceExhausted: the device's.
  [[nodiscard]] virtual Result<std::unique_ptr<StreamTimes>> make_stream_times(std::size_t points) {
    static_cast<void>(points);
    return std::unique_ptr<StreamTimes>();
  }
  /// What is slower or missing here than it could be, and what to do; for the log. Empty where there is nothing to say.
  [[nodiscard]] virtual std::string remark() const { return {}; }
  /// Cost  a look at counters: never asks the device.
  [[nodiscard]] virtual DeviceUsage usage() const { return {}; }

 protected:
  Device() = default;
};

/// One line of the table of device backends.
struct DeviceBackend {
  std::string_view name;
  bool host_memory = true;  ///< see Device::host_memory
  /// Whether `make` could work on this machine.      Errors  kUnsupported: what is missing, and what to do.
  Status (*probe)(const DeviceOptions& options) = nullptr;
  Result<std::unique_ptr<Device>> (*make)(const DeviceOptions& options) = nullptr;
};
/// All devices that this build knows.
[[nodiscard]] std::span<const DeviceBackend> device_backends();
/// The name by which choose_device looks for the best one.
inline constexpr std::string_view kAutoDevice = "auto";
/// What --device may be: kAutoDevice and the table's names.
[[nodiscard]] std::span<const std::string_view> device_names();
/// Errors  kInvalidArgument: an unknown name, with the known ones.
[[nodiscard]] Result<const DeviceBackend*> find_device_backend(std::string_view name);
/// Errors  as find_device_backend, and the backend's own.
[[nodiscard]] Result<std::unique_ptr<Device>> make_device(std::string_view name, const DeviceOptions& options);

struct DeviceChoice {
  const DeviceBackend* backend = nullptr;
  std::string note{};  ///< why kAutoDevice chose no better one, for the log; empty where there is nothing to say
};
/// The device to compute on: the one of device_names() that is named, or for kAutoDevice the first but "cpu" that is usable here, else "cpu".
/// Errors  kInvalidArgument: an unknown name; kUnsupported: the named device cannot be used here, and why.
[[nodiscard]] Result<DeviceChoice> choose_device(std::string_view name, const DeviceOptions& options);

}  // namespace lockstep::device
