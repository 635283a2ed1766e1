// CudaSignal: a point that the host fires, for which CUDA streams wait on the device.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "device/cuda/cuda_context.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::device::cuda {

/// What a signal and the waits for it share. A stream's wait is for a word of page-locked memory to reach a number: no thread is held, no callback made.
/// The word counts fires modulo 2^32, and waits compare cyclically: fewer than 2^31 may be armed at once.
class SignalState {
 public:
  [[nodiscard]] static Result<std::shared_ptr<SignalState>> create(const CudaContext& context);

  void arm();
  void fire(Status status);
  /// Nobody will fire any more: who waits goes on, with kCancelled.
  void abandon();
  /// How often it was armed: the point that a wait enqueued now is for.
  [[nodiscard]] std::uint64_t armed() const;
  [[nodiscard]] bool reached(std::uint64_t point) const;
  /// The error that came with the point, once reached.
  [[nodiscard]] Status status_at(std::uint64_t point) const;
  [[nodiscard]] std::uint32_t* word() const { return word_.as<std::uint32_t>(); }

 private:
  explicit SignalState(Buffer word) : word_(std::move(word)) {}
  void publish(std::uint64_t fired);

  const Buffer word_;
  mutable std::mutex mutex_;
  std::uint64_t armed_ = 0;
  std::uint64_t fired_ = 0;
  bool failing_ = false;  ///< all that is armed meanwhile gets the failure, too
  std::optional<Error> failure_;
  std::uint64_t failure_first_ = 0;  ///< the points from here to failure_last_ carry the failure
  std::uint64_t failure_last_ = 0;
};

class CudaStream;

/// What a CUDA stream can be made to wait for.
class CudaWaitable : public Event {
 public:
  /// Enqueues the wait on `stream`; a failure that is known by then becomes the stream's.
  virtual void hold_back(CudaStream& stream) = 0;
  [[nodiscard]] bool reached_within(Duration limit) override;
};

class CudaSignalEvent final : public CudaWaitable {
 public:
  explicit CudaSignalEvent(std::shared_ptr<SignalState> state) : state_(std::move(state)) {}
  [[nodiscard]] bool query() const override { return state_->reached(state_->armed()); }
  [[nodiscard]] Status wait(const Deadline& deadline) override;
  void hold_back(CudaStream& stream) override;

 private:
  const std::shared_ptr<SignalState> state_;  ///< shared with the signal and with streams that wait
};

class CudaSignal final : public Signal {
 public:
  explicit CudaSignal(const std::shared_ptr<SignalState>& state) : state_(state), event_(state) {}
  ~CudaSignal() override { state_->abandon(); }
  void arm() override { state_->arm(); }
  void fire(Status status) override { state_->fire(std::move(status)); }
  [[nodiscard]] Event& event() override { return event_; }

 private:
  const std::shared_ptr<SignalState> state_;  ///< shared with its event and with streams that wait
  CudaSignalEvent event_;
};

}  // namespace lockstep::device::cuda
