#include "device/host/host_device.hpp"

#include <fmt/format.h>

#include "device/host/compute_pool.hpp"
#include "device/host/host_memory.hpp"
#include "device/host/host_ops.hpp"
#include "device/host/instruction_set.hpp"
#include "device/host/streams/host_event.hpp"
#include "device/host/streams/host_signal.hpp"
#include "device/host/streams/host_stream.hpp"
#include "device/host/streams/inline_stream.hpp"

namespace lockstep::device::host {

namespace {

/// About 2 microseconds at 40 to 140 cycles per pause: less than it takes to sleep and be woken, too little to disturb who shares the core.
constexpr int kSpinRounds = 50;

class HostDevice final : public Device {
 public:
  HostDevice(const DeviceOptions& options, InstructionSet instruction_set, std::unique_ptr<ComputePool> pool)
      : instruction_set_(std::move(instruction_set)), spin_rounds_(options.core_count > 1 ? kSpinRounds : 0), pool_(std::move(pool)) {}

  [[nodiscard]] Result<Buffer> allocate(std::size_t bytes) override { return allocate_zeroed(bytes); }
  [[nodiscard]] Result<Buffer> allocate_host(std::size_t bytes) override { return allocate_zeroed(bytes); }
  [[nodiscard]] Result<std::unique_ptr<Stream>> make_stream(std::string_view name, StreamPriority /*priority*/) override {
    return HostStream::create(name, spin_rounds_);
  }
  [[nodiscard]] std::unique_ptr<Stream> make_inline_stream(std::string_view name) override { return std::make_unique<InlineStream>(name); }
  [[nodiscard]] std::unique_ptr<Event> make_event() override { return std::make_unique<HostEvent>(); }
  [[nodiscard]] std::unique_ptr<Signal> make_signal() override { return std::make_unique<HostSignal>(spin_rounds_); }
  [[nodiscard]] Result<std::unique_ptr<Ops>> make_ops() override { return HostOps::create(instruction_set_, *pool_); }
  [[nodiscard]] std::string_view name() const override { return "cpu"; }

 private:
  const InstructionSet instruction_set_;
  const int spin_rounds_;
  const std::unique_ptr<ComputePool> pool_;  ///< shared by all ops made here
};

}  // namespace

Result<std::unique_ptr<Device>> make_host_device(const DeviceOptions& options) {
  if (options.core_count < 1) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("a host device with {} cores: expected at least 1", options.core_count)};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<ComputePool> pool, ComputePool::create(options.core_count));
  return std::unique_ptr<Device>(std::make_unique<HostDevice>(options, detect_instruction_set(), std::move(pool)));
}

}  // namespace lockstep::device::host
