// The table of device backends. An explicit table: self-registering statics are dropped by the linker from static libraries.
#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "device/host/host_device.hpp"
#include "device/plugin/cuda_plugin.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::device {

namespace {

Status probe_host(const DeviceOptions& /*options*/) {
  return {};
}

constexpr std::string_view kHost = "cpu";

/// In order of preference, the host last: it always works.
constexpr std::array kBackends{
    DeviceBackend{.name = "cuda", .host_memory = false, .probe = plugin::probe_cuda, .make = plugin::make_cuda_device},
    DeviceBackend{.name = kHost, .host_memory = true, .probe = probe_host, .make = host::make_host_device},
};

constexpr std::array<std::string_view, 1 + kBackends.size()> kNames = [] {
  std::array<std::string_view, 1 + kBackends.size()> names{kAutoDevice};
  std::ranges::transform(kBackends, names.begin() + 1, &DeviceBackend::name);
  return names;
}();

}  // namespace

std::span<const DeviceBackend> device_backends() {
  return kBackends;
}

std::span<const std::string_view> device_names() {
  return kNames;
}

Result<const DeviceBackend*> find_device_backend(std::string_view name) {
  const auto* const found = std::ranges::find(kBackends, name, &DeviceBackend::name);
  if (found == kBackends.end()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--device is \"{}\", expected one of {}", name, fmt::join(kNames, ", "))};
  }
  return found;
}

Result<std::unique_ptr<Device>> make_device(std::string_view name, const DeviceOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const DeviceBackend* backend, find_device_backend(name));
  return backend->make(options);
}

Result<DeviceChoice> choose_device(std::string_view name, const DeviceOptions& options) {
  if (name != kAutoDevice) {
    LOCKSTEP_ASSIGN_OR_RETURN(const DeviceBackend* named, find_device_backend(name));
    if (Status usable = named->probe(options); !usable) {
      return Error{usable.error().code, fmt::format("--device {}: {}", name, usable.error().message)};
    }
    return DeviceChoice{.backend = named};
  }
  std::string note;
  for (const DeviceBackend& backend : kBackends) {
    const Status usable = backend.probe(options);
    if (usable) {
      return DeviceChoice{.backend = &backend, .note = note.empty() ? std::string() : fmt::format("computing on {}: {}", backend.name, note)};
    }
    note += fmt::format("{}{}: {}", note.empty() ? "" : "; ", backend.name, usable.error().message);
  }
  return Error{ErrorCode::kUnsupported, fmt::format("--device {}: no device is usable here: {}", name, note)};
}

}  // namespace lockstep::device
