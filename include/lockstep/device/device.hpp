// Device: where a rank computes. Makes streams, events, memory and ops.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "lockstep/core/result.hpp"
#include "lockstep/device/ops.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::device {

/// A zeroed allocation of a device, aligned to 64 bytes at least; freed by the destructor.      Threads  a plain value owner.
class Buffer {
 public:
  Buffer() = default;
  Buffer(void* data, std::size_t bytes, void (*release)(void* data, std::size_t bytes)) : data_(data), bytes_(bytes), release_(release) {}
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
  void (*release_)(void* data, std::size_t bytes) = nullptr;
};

struct DeviceOptions {
  int local_rank = 0;
  int core_count = 1;  ///< this rank's share of the host's cores
};

/// One device of one rank.      Ownership  owns nothing that it made; outlives it all.      Threads  `allocate`, `make_*`: any.
class Device {
 public:
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  [[nodiscard]] virtual Result<Buffer> allocate(std::size_t bytes) = 0;
  /// A stream that runs work on its own (a thread, a CUDA stream).
  [[nodiscard]] virtual Result<std::unique_ptr<Stream>> make_stream(std::string_view name) = 0;
  /// A stream that runs each task on the calling thread at once; its events are complete when recorded. For steps with one micro-batch.
  [[nodiscard]] virtual std::unique_ptr<Stream> make_inline_stream(std::string_view name) = 0;
  [[nodiscard]] virtual std::unique_ptr<Event> make_event() = 0;
  [[nodiscard]] virtual std::unique_ptr<Signal> make_signal() = 0;
  [[nodiscard]] virtual Result<std::unique_ptr<Ops>> make_ops() = 0;
  [[nodiscard]] virtual std::string_view name() const = 0;

 protected:
  Device() = default;
};

/// One line of the table of device backends.
struct DeviceBackend {
  std::string_view name;
  Result<std::unique_ptr<Device>> (*make)(const DeviceOptions& options);
};
/// All devices built in.
[[nodiscard]] std::span<const DeviceBackend> device_backends();
/// Errors  kInvalidArgument: an unknown name, with the known ones.
[[nodiscard]] Result<const DeviceBackend*> find_device_backend(std::string_view name);
/// Errors  as find_device_backend, and the backend's own.
[[nodiscard]] Result<std::unique_ptr<Device>> make_device(std::string_view name, const DeviceOptions& options);

}  // namespace lockstep::device
