#include "daemon/group/group_start.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <span>

#include <fmt/format.h>

#include "daemon/files/regular_file.hpp"
#include "lockstep/core/bfloat16.hpp"
#include "lockstep/core/hash.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::daemon {
namespace {

constexpr std::size_t kSecretBytesMax = 4096;
constexpr std::size_t kNumbersPerMember = 3;

/// Ports that count up from an option's, one for each rank of the host; none when the kernel chooses.
struct PortRange {
  const char* option;
  int first;
  int count;
  [[nodiscard]] int last() const { return first + count - 1; }
};

Status check_ports(const DaemonOptions& options, int local_size) {
  constexpr int kPortMax = 65535;
  const std::array<PortRange, 3> ranges{
      {{"--port", options.port, local_size}, {"--shared-port", options.shared_port, 1}, {"--peer-port", options.peer_port, local_size}}};
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const PortRange& range = ranges[i];
    if (range.first == 0) {
      continue;
    }
    if (range.last() > kPortMax) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("{}: {} leaves no room for the {} ranks of this host, which count up from it; expected at most {}",
                                                            range.option, range.first, range.count, kPortMax + 1 - range.count)};
    }
    for (const PortRange& other : std::span(ranges).first(i)) {
      if (other.first != 0 && range.first <= other.last() && other.first <= range.last()) {
        return Error{ErrorCode::kInvalidArgument, fmt::format("{}: {} is among the ports {} to {} that the ranks of this host take by {}; choose another",
                                                              range.option, range.first, other.first, other.last(), other.option)};
      }
    }
  }
  return {};
}

/// The largest message of MPI between two ranks: the answers to a full step of rows.
Status check_messages(const DaemonOptions& options, int ranks, const model::ModelConfig& config) {
  constexpr std::int64_t kBytesMax = std::numeric_limits<int>::max();
  constexpr std::int64_t kHeaderBytes = 4096;  // more than it is
  if (ranks == 1 || config.expert_count == 0) {
    return {};
  }
  const std::int64_t experts_of_a_rank = (config.expert_count + ranks - 1) / ranks;
  const std::int64_t pairs_of_a_row = std::min<std::int64_t>(config.experts_per_token, experts_of_a_rank);
  const std::int64_t bytes_of_a_pair = config.hidden_size * std::int64_t{sizeof(BFloat16)} + std::int64_t{sizeof(std::int64_t)};
  const std::int64_t rows_max = (kBytesMax - kHeaderBytes) / (pairs_of_a_row * bytes_of_a_pair);
  if (options.max_num_batched_tokens <= rows_max) {
    return {};
  }
  return Error{
      ErrorCode::kInvalidArgument,
      fmt::format("--max-num-batched-tokens is {}: the answers to so many rows, {} experts each, are more than the {} bytes of a message of MPI; give at "
                  "most {}",
                  options.max_num_batched_tokens, pairs_of_a_row, kBytesMax, rows_max)};
}

}  // namespace

Result<GroupSecret> find_group_secret(const std::filesystem::path& file, const comm::LaunchInfo& launch, const comm::EnvironmentReader& environment) {
  if (!file.empty()) {
    Result<RegularFile> read = read_regular_file(file, kSecretBytesMax);
    if (read) {
      read->text.erase(read->text.find_last_not_of("\r\n") + 1);
    }
    if (!read || read->text.empty()) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("--group-secret-file {}: {}; expected a file with the secret that all ranks share", file.string(),
                                                            read ? "is empty" : read.error().message)};
    }
    return GroupSecret{.value = std::move(read->text)};
  }
  if (launch.world_size == 1) {
    return GroupSecret{};
  }
  if (auto value = environment("LOCKSTEP_GROUP_SECRET"); value && !value->empty()) {
    return GroupSecret{.value = std::move(*value)};
  }
  if (launch.job_id.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "the ranks of a group need a common secret: set LOCKSTEP_GROUP_SECRET or --group-secret-file, or start with lockstep-run"};
  }
  return GroupSecret{.value = "job " + launch.job_id,
                     .warning =
                         "no group secret is set: it is derived from the launcher's job id, which other users of these hosts may learn; set "
                         "LOCKSTEP_GROUP_SECRET or start with lockstep-run"};
}

Result<std::vector<comm::PeerEndpoint>> exchange_endpoints(comm::Communicator& communicator, const comm::PeerEndpoint& mine, const Deadline& deadline) {
  const auto members = static_cast<std::size_t>(communicator.size());
  std::vector<std::int32_t> numbers(members * kNumbersPerMember, 0);
  const std::size_t own = static_cast<std::size_t>(communicator.rank()) * kNumbersPerMember;
  numbers[own] = static_cast<std::int32_t>(mine.address >> 16U);
  numbers[own + 1] = static_cast<std::int32_t>(mine.address & 0xFFFFU);
  numbers[own + 2] = mine.port;
  LOCKSTEP_ASSIGN_OR_RETURN(const comm::Ticket ticket, communicator.start_all_reduce(numbers, comm::ReduceOp::kSum));
  std::vector<std::int32_t> all(numbers.size());
  LOCKSTEP_RETURN_IF_ERROR(communicator.wait(ticket, all, deadline));
  std::vector<comm::PeerEndpoint> endpoints(members);
  for (std::size_t member = 0; member < members; ++member) {
    const std::size_t at = member * kNumbersPerMember;
    endpoints[member].address = (static_cast<std::uint32_t>(all[at]) << 16U) | static_cast<std::uint32_t>(all[at + 1]);
    endpoints[member].port = static_cast<std::uint16_t>(all[at + 2]);
  }
  return endpoints;
}

scheduler::EngineOptions engine_options(const DaemonOptions& options) {
  return {.max_num_seqs = options.max_num_seqs,
          .max_num_batched_tokens = options.max_num_batched_tokens,
          .max_pending = options.max_pending,
          .kv_cache_bytes = options.kv_cache_bytes,
          .max_model_len = options.max_model_len,
          .micro_batches = options.micro_batches == kMicroBatchesAuto ? 4 : options.micro_batches,
          .micro_batches_auto = options.micro_batches == kMicroBatchesAuto,
          .gather_rows = options.gather_rows,
          .combine = options.combine,
          .agreement = options.agreement,
          .graphs = options.cuda_graphs.value_or(GraphMode::kFull),
          .graph_tokens_max = options.cuda_graph_max_tokens,
          .stall_timeout = options.stall_timeout,
          .keep_alive_interval = options.keep_alive_interval,
          // Two builds may round differently, even of one version; and a text has one embedding, whichever rank is asked.
          .options_hash = fnv1a(options.communicator,
                                fnv1a(options.embedding_pooling == scheduler::Pooling::kMean ? "mean" : "last", fnv1a(LOCKSTEP_VERSION " " __VERSION__)))};
}

Status check_start(const DaemonOptions& options, const comm::LaunchInfo& launch, const model::ModelConfig& config, std::int64_t host_memory_bytes) {
  LOCKSTEP_RETURN_IF_ERROR(check_ports(options, launch.local_size));
  bool by_mpi = options.communicator == "mpi";  // else rows may stay on devices
  if (options.device != device::kAutoDevice) {
    LOCKSTEP_ASSIGN_OR_RETURN(const device::DeviceBackend* const backend, device::find_device_backend(options.device));
    by_mpi = by_mpi || backend->host_memory;
    if (backend->host_memory && options.cuda_graphs.value_or(GraphMode::kNone) != GraphMode::kNone) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("--cuda-graphs asks for graphs, but this rank computes on {}, which has none; expected auto or none, or a --device that has them",
                      options.device)};
    }
  }
  const scheduler::EngineOptions engine = engine_options(options);
  LOCKSTEP_RETURN_IF_ERROR(scheduler::check_engine_options(engine, config, launch.world_size));
  if (by_mpi) {
    LOCKSTEP_RETURN_IF_ERROR(check_messages(options, launch.world_size, config));
  }
  const std::int64_t cache_bytes = scheduler::kv_cache_bytes_used(engine, config);
  if (cache_bytes > host_memory_bytes / launch.local_size) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--kv-cache-memory: {} bytes on each of {} ranks are more than this host's memory of {} bytes; give less, or lower --max-num-seqs",
                             cache_bytes, launch.local_size, host_memory_bytes)};
  }
  return {};
}

}  // namespace lockstep::daemon
