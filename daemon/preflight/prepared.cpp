#include "daemon/preflight/prepared.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "daemon/group/group_start.hpp"
#include "daemon/preflight/environment_checks.hpp"
#include "lockstep/comm/communicator_choice.hpp"
#include "lockstep/core/bfloat16.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::daemon {
namespace {

/// Of ranks that are only thought of, the last one: it needs the most devices.
int asking_rank(const comm::LaunchInfo& launch) {
  return launch.launcher == kAssumedLauncher ? launch.local_size - 1 : launch.local_rank;
}

device::DeviceOptions device_options(const Prepared& prepared) {
  return {.local_rank = asking_rank(prepared.launch),
          .local_size = prepared.launch.local_size,
          .core_count = prepared.facts.cores_per_rank,
          .batch_invariant = prepared.options.batch_invariant};
}

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max();

/// Known of a name alone: not of "auto", nor of one that there is not.
bool computes_in_host_memory(const std::string& name) {
  const Result<const device::DeviceBackend*> backend = device::find_device_backend(name);
  return backend && (*backend)->host_memory;
}

/// Replaces "auto" by what it stands for here.
Status choose_device(Prepared& prepared, spdlog::logger& logger) {
  LOCKSTEP_ASSIGN_OR_RETURN(const device::DeviceChoice choice, device::choose_device(prepared.options.device, device_options(prepared)));
  if (!choice.note.empty()) {
    logger.info("{}", choice.note);
  }
  prepared.options.device = choice.backend->name;
  return {};
}

/// A rank alone has nobody to talk to, whatever it is told to do that by.
Status check_communicator(const Prepared& prepared) {
  if (prepared.launch.world_size == 1) {
    return {};
  }
  comm::CommOptions options{.launch = prepared.launch};
  options.launch.local_rank = asking_rank(prepared.launch);
  return comm::check_communicator({.name = prepared.options.communicator, .computes_on_device = !computes_in_host_memory(prepared.options.device)}, options);
}

/// Bytes that `ops` packs a matrix into, for each of its weights: the layout is the device's own affair.
Result<double> packed_bytes_per_weight(device::Ops& ops, std::span<const BFloat16> weights, std::int64_t columns) {
  const auto count = static_cast<std::int64_t>(weights.size());
  LOCKSTEP_ASSIGN_OR_RETURN(const device::WeightHandle weight,
                            ops.pack_weight({.type = device::DataType::kBFloat16,
                                             .data = reinterpret_cast<const std::byte*>(weights.data()),  // the values' own bytes
                                             .rows = count / columns,
                                             .columns = columns}));
  return static_cast<double>(weight->bytes()) / static_cast<double>(count);
}

Status ask_device(Prepared& prepared, spdlog::logger& logger) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<device::Device> device, device::make_device(prepared.options.device, device_options(prepared)));
  if (const std::string remark = device->remark(); !remark.empty()) {
    logger.warn("{}", remark);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<device::Ops> ops, device->make_ops());
  prepared.facts.instructions = ops->instruction_set();
  prepared.device_memory_bytes = device->usage().memory_free_bytes;
  constexpr std::int64_t kColumns = 64;
  std::vector<BFloat16> weights(kLargeMatrixWeights);
  std::mt19937 random;  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same sample each time
  std::normal_distribution<float> trained(0.0F, 0.02F);
  std::ranges::generate(weights, [&] { return BFloat16(trained(random)); });
  LOCKSTEP_ASSIGN_OR_RETURN(prepared.bytes_per_weight, packed_bytes_per_weight(*ops, std::span(weights).first(kColumns * kColumns), kColumns));
  LOCKSTEP_ASSIGN_OR_RETURN(prepared.bytes_per_large_weight, packed_bytes_per_weight(*ops, weights, kColumns));
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
  const bool on_host = computes_in_host_memory(prepared.options.device);
  LOCKSTEP_RETURN_IF_ERROR(check_start(prepared.options, launch, prepared.model.config, on_host ? prepared.host_memory_bytes : kUnlimited));
  LOCKSTEP_ASSIGN_OR_RETURN(GroupSecret secret, find_group_secret(prepared.options.group_secret_file, launch, environment));
  if (!secret.warning.empty() && launch.rank == 0 && launch.launcher != kAssumedLauncher) {
    logger.warn("{}", secret.warning);
  }
  prepared.secret = std::move(secret.value);
  prepared.facts = read_start_facts(launch, environment);
  LOCKSTEP_RETURN_IF_ERROR(choose_device(prepared, logger));
  if (!on_host && computes_in_host_memory(prepared.options.device)) {  // "auto" has become the host
    LOCKSTEP_RETURN_IF_ERROR(check_start(prepared.options, launch, prepared.model.config, prepared.host_memory_bytes));
  }
  LOCKSTEP_RETURN_IF_ERROR(check_communicator(prepared));
  LOCKSTEP_RETURN_IF_ERROR(ask_device(prepared, logger));
  return prepared;
}

}  // namespace lockstep::daemon
