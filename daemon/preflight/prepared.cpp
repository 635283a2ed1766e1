#include "daemon/preflight/prepared.hpp"

#include <array>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <utility>

#include "daemon/group/group_start.hpp"
#include "daemon/preflight/environment_checks.hpp"
#include "lockstep/core/bfloat16.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::daemon {
namespace {

device::DeviceOptions device_options(const Prepared& prepared) {
  return {.local_rank = prepared.launch.local_rank, .local_size = prepared.launch.local_size, .core_count = prepared.facts.cores_per_rank};
}

/// Replaces "auto" by what it stands for here. The engine reads activations and logits where the ops leave them: it needs a device in the host's memory.
Status choose_device(Prepared& prepared, spdlog::logger& logger) {
  LOCKSTEP_ASSIGN_OR_RETURN(const device::DeviceChoice choice,
                            device::choose_device({.name = prepared.options.device, .host_memory = true}, device_options(prepared)));
  if (!choice.note.empty()) {
    logger.info("{}", choice.note);
  }
  prepared.options.device = choice.backend->name;
  return {};
}

/// Asks the device itself, by packing a small matrix: the layout is its own affair.
Status ask_device(Prepared& prepared) {
  constexpr std::int64_t kSide = 64;
  const std::array<std::byte, kSide * kSide * sizeof(BFloat16)> zeros{};
  LOCKSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<device::Device> device, device::make_device(prepared.options.device, device_options(prepared)));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<device::Ops> ops, device->make_ops());
  LOCKSTEP_ASSIGN_OR_RETURN(const device::WeightHandle weight,
                            ops->pack_weight({.type = device::DataType::kBFloat16, .data = zeros.data(), .rows = kSide, .columns = kSide}));
  prepared.bytes_per_weight = static_cast<double>(weight->bytes()) / static_cast<double>(kSide * kSide);
  prepared.facts.instructions = ops->instruction_set();
  return {};
}

}  // namespace

Result<Prepared> prepare(DaemonOptions options, const comm::LaunchInfo& launch, const comm::EnvironmentReader& environment, spdlog::logger& logger) {
  Prepared prepared{.options = std::move(options), .launch = launch};
  LOCKSTEP_RETURN_IF_ERROR(check_instruction_limit(environment));
  std::error_code error;
  const std::filesystem::path executable = std::filesystem::read_symlink("/proc/self/exe", error);
  LOCKSTEP_ASSIGN_OR_RETURN(prepared.model, open_served_model(prepared.options, executable));
  LOCKSTEP_ASSIGN_OR_RETURN(prepared.front_door, read_front_door_parts(prepared.options, launch, environment, logger));
  prepared.host_memory_bytes = host_memory_bytes();
  LOCKSTEP_RETURN_IF_ERROR(check_start(prepared.options, launch, prepared.model.config, prepared.host_memory_bytes));
  LOCKSTEP_ASSIGN_OR_RETURN(GroupSecret secret, find_group_secret(prepared.options.group_secret_file, launch, environment));
  if (!secret.warning.empty() && launch.rank == 0 && launch.launcher != kAssumedLauncher) {
    logger.warn("{}", secret.warning);
  }
  prepared.secret = std::move(secret.value);
  prepared.facts = read_start_facts(launch, environment);
  LOCKSTEP_RETURN_IF_ERROR(choose_device(prepared, logger));
  LOCKSTEP_RETURN_IF_ERROR(ask_device(prepared));
  return prepared;
}

}  // namespace lockstep::daemon
