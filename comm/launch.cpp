#include "lockstep/comm/launch.hpp"

#include <charconv>
#include <cstdlib>

#include <fmt/format.h>

namespace lockstep::comm {

namespace {

/// Slurm numbers its own steps (batch script, interactive shell, external) from the top of 32 bits: they are not jobs of several ranks.
constexpr std::uint64_t kSlurmReservedStep = 0xfffffff0U;

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() && !text.empty() ? std::optional(value) : std::nullopt;
}

/// Reads a number in [low, high] that the launcher must have set once it has set `because`.
Result<int> require_number(const EnvironmentReader& environment, std::string_view name, int low, int high, std::string_view because) {
  const std::optional<std::string> text = environment(name);
  if (!text) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} is set but {} is not; start all ranks by one launcher, or unset {} to run one rank alone", because, name, because)};
  }
  const std::optional<std::uint64_t> value = parse_number(*text);
  if (!value || *value < static_cast<std::uint64_t>(low) || *value > static_cast<std::uint64_t>(high)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} is '{}'; expected a number from {} to {}", name, *text, low, high)};
  }
  return static_cast<int>(*value);
}

constexpr int kWorldSizeMax = 1 << 20;

Result<LaunchInfo> read_mpirun(const EnvironmentReader& environment) {
  constexpr std::string_view kRank = "OMPI_COMM_WORLD_RANK";
  LaunchInfo info{.launcher = "mpirun"};
  LOCKSTEP_ASSIGN_OR_RETURN(info.world_size, require_number(environment, "OMPI_COMM_WORLD_SIZE", 1, kWorldSizeMax, kRank));
  LOCKSTEP_ASSIGN_OR_RETURN(info.rank, require_number(environment, kRank, 0, info.world_size - 1, kRank));
  LOCKSTEP_ASSIGN_OR_RETURN(info.local_size, require_number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE", 1, info.world_size, kRank));
  LOCKSTEP_ASSIGN_OR_RETURN(info.local_rank, require_number(environment, "OMPI_COMM_WORLD_LOCAL_RANK", 0, info.local_size - 1, kRank));
  info.job_id = environment("PMIX_NAMESPACE").value_or(environment("OMPI_MCA_ess_base_jobid").value_or(""));
  return info;
}

/// Tasks of one node, from a list like "2(x3),1": three nodes with 2, then one with 1.
std::optional<int> tasks_of_node(std::string_view list, std::uint64_t node) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    std::string_view entry = list.substr(0, comma);
    list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
    std::optional<std::uint64_t> repeats = 1;
    if (const std::size_t open = entry.find("(x"); open != std::string_view::npos && entry.ends_with(')')) {
      repeats = parse_number(entry.substr(open + 2, entry.size() - open - 3));
      entry = entry.substr(0, open);
    }
    const std::optional<std::uint64_t> tasks = parse_number(entry);
    if (!tasks || !repeats || *tasks < 1 || *tasks > static_cast<std::uint64_t>(kWorldSizeMax)) {
      return std::nullopt;
    }
    if (node < *repeats) {
      return static_cast<int>(*tasks);
    }
    node -= *repeats;
  }
  return std::nullopt;
}

Result<LaunchInfo> read_srun(const EnvironmentReader& environment, const std::string& step) {
  constexpr std::string_view kRank = "SLURM_PROCID";
  LaunchInfo info{.launcher = "srun"};
  // A step may have fewer tasks than its job; older versions of srun say so in SLURM_NTASKS only.
  const std::string_view size_name = environment("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  LOCKSTEP_ASSIGN_OR_RETURN(info.world_size, require_number(environment, size_name, 1, kWorldSizeMax, kRank));
  LOCKSTEP_ASSIGN_OR_RETURN(info.rank, require_number(environment, kRank, 0, info.world_size - 1, kRank));
  if (!environment("PMIX_RANK") || !environment("PMIX_NAMESPACE")) {
    if (info.world_size == 1) {
      return LaunchInfo{};
    }
    // Going on would start that many daemons of one rank each, which fight for one port.
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} is {} in step {}, but PMIX_RANK or PMIX_NAMESPACE is not set, so MPI_Init cannot find the other tasks; "
                             "start with srun --mpi=pmix, or with mpirun inside the allocation",
                             size_name, info.world_size, step)};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const int node, require_number(environment, "SLURM_NODEID", 0, kWorldSizeMax, kRank));
  const std::string list = environment("SLURM_STEP_TASKS_PER_NODE").value_or("");
  const std::optional<int> local_size = tasks_of_node(list, static_cast<std::uint64_t>(node));
  if (!local_size || *local_size > info.world_size) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("SLURM_STEP_TASKS_PER_NODE is '{}'; expected a list like 2(x3),1 with an entry for node {} and at most {} tasks", list, node,
                             info.world_size)};
  }
  info.local_size = *local_size;
  LOCKSTEP_ASSIGN_OR_RETURN(info.local_rank, require_number(environment, "SLURM_LOCALID", 0, info.local_size - 1, kRank));
  info.job_id = fmt::format("{}.{}", environment("SLURM_JOB_ID").value_or(""), step);
  return info;
}

}  // namespace

EnvironmentReader process_environment() {
  return [](std::string_view name) -> std::optional<std::string> {
    const char* value = std::getenv(std::string(name).c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
}

Result<LaunchInfo> read_launch_info(const EnvironmentReader& environment) {
  // mpirun first: inside a Slurm allocation its ranks see Slurm's variables too, those of the step that started the MPI daemons.
  if (environment("OMPI_COMM_WORLD_RANK")) {
    return read_mpirun(environment);
  }
  // SLURM_PROCID alone proves nothing: the shell of an sbatch script has it too, as 0, beside the job's SLURM_NTASKS. Only what srun started has a step id, and
  // an interactive shell's is one of the reserved ones.
  const std::optional<std::string> step = environment("SLURM_STEP_ID");
  const std::optional<std::uint64_t> step_number = step ? parse_number(*step) : std::nullopt;
  if (environment("SLURM_PROCID") && step_number && *step_number < kSlurmReservedStep) {
    return read_srun(environment, *step);
  }
  return LaunchInfo{};
}

}  // namespace lockstep::comm
