// What the host reads and writes of a device's memory. Where the host may look into that itself, nothing is copied.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <utility>

#include "lockstep/core/deadline.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::model {

/// Memory that ops work on and the host reads afterwards: with a device that has memory of its own, two buffers; else one.
class ReadableBuffer {
 public:
  /// Zeroed.      Errors  the device's.
  [[nodiscard]] static Result<ReadableBuffer> create(device::Device& device, std::size_t bytes);
  ReadableBuffer() = default;

  template <typename T>
  [[nodiscard]] T* on_device() const {
    return device_.as<T>();
  }
  /// What `bring` has brought, once the stream has done it.
  template <typename T>
  [[nodiscard]] T* on_host() const {
    return (copied_ ? host_ : device_).as<T>();
  }
  /// Enqueues that `count` elements from `first` on come to the host.      Cost  nothing where the memory is one.
  template <typename T>
  void bring(device::Ops& ops, device::Stream& stream, std::int64_t first, std::int64_t count) const {
    if (copied_ && count > 0) {
      ops.download(stream, device_.as<T>() + first, static_cast<std::size_t>(count) * sizeof(T), host_.as<T>() + first);
    }
  }

 private:
  device::Buffer device_;
  device::Buffer host_;  ///< nothing where `device_` is the host's
  bool copied_ = false;
};

/// Page-locked memory that constants pass through on their way to a device.
inline constexpr std::size_t kFillPassBytes = std::size_t{8} << 20;
/// Copying so much takes milliseconds: after this long the device hangs.
inline constexpr Duration kFillLimit = std::chrono::seconds(60);

/// A buffer of the device that holds `rows` rows of `columns` values: `write(first_row, row_count, to)` writes some of them to the host's memory, in order.
/// Errors  the device's.      Cost  for loading: waits for the device.
template <typename T, typename Write>
[[nodiscard]] Result<device::Buffer> make_filled(device::Device& device, device::Ops& ops, std::int64_t rows, std::int64_t columns, const Write& write) {
  const std::size_t row_bytes = static_cast<std::size_t>(columns) * sizeof(T);
  LOCKSTEP_ASSIGN_OR_RETURN(device::Buffer buffer, device.allocate(static_cast<std::size_t>(rows) * row_bytes));
  if (device.host_memory()) {
    write(std::int64_t{0}, rows, buffer.as<T>());
    return buffer;
  }
  const std::int64_t rows_per_pass =
      std::clamp<std::int64_t>(static_cast<std::int64_t>(kFillPassBytes / std::max<std::size_t>(row_bytes, 1)), 1, std::max<std::int64_t>(rows, 1));
  LOCKSTEP_ASSIGN_OR_RETURN(const device::Buffer pass, device.allocate_host(static_cast<std::size_t>(rows_per_pass) * row_bytes));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<device::Stream> stream, device.make_stream("constants"));
  for (std::int64_t first = 0; first < rows; first += rows_per_pass) {
    const std::int64_t count = std::min(rows_per_pass, rows - first);
    write(first, count, pass.as<T>());
    stream->enqueue([&]() -> Status {
      ops.upload(*stream, pass.as<T>(), static_cast<std::size_t>(count) * row_bytes, buffer.as<T>() + first * columns);
      return {};
    });
    LOCKSTEP_RETURN_IF_ERROR(stream->synchronize(Deadline::after(kFillLimit)));
  }
  return buffer;
}

}  // namespace lockstep::model
