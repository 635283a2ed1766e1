// The table of device backends. An explicit table: self-registering statics are dropped by the linker from static libraries.
#include <array>

#include <fmt/format.h>

#include "device/host/host_device.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::device {

namespace {
constexpr std::array kBackends{
    DeviceBackend{.name = "cpu", .make = host::make_host_device},
};
}  // namespace

std::span<const DeviceBackend> device_backends() {
  return kBackends;
}

Result<const DeviceBackend*> find_device_backend(std::string_view name) {
  std::string known;
  for (const DeviceBackend& backend : kBackends) {
    if (backend.name == name) {
      return &backend;
    }
    known += fmt::format("{}{}", known.empty() ? "" : ", ", backend.name);
  }
  return Error{ErrorCode::kInvalidArgument, fmt::format("--device: unknown device \"{}\": this build has {}; choose one of them", name, known)};
}

Result<std::unique_ptr<Device>> make_device(std::string_view name, const DeviceOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const DeviceBackend* backend, find_device_backend(name));
  return backend->make(options);
}

}  // namespace lockstep::device
