#include "daemon/preflight/preflight.hpp"

#include <cstdio>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "daemon/lifecycle/log.hpp"
#include "daemon/preflight/environment_checks.hpp"
#include "daemon/preflight/exit_status.hpp"
#include "daemon/preflight/group_plan.hpp"
#include "daemon/preflight/prepared.hpp"
#include "lockstep/comm/peer_channel.hpp"
#include "lockstep/core/exit_codes.hpp"

namespace lockstep::daemon {
namespace {

Result<comm::LaunchInfo> assumed_launch(const DaemonOptions& options, const comm::LaunchInfo& launch) {
  if (options.assume_ranks == 0) {
    return launch;
  }
  if (launch.world_size > 1) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--assume-ranks is {}, but {} has started {} ranks: leave it out, or start one process alone",
                                                          options.assume_ranks, launch.launcher, launch.world_size)};
  }
  comm::LaunchInfo assumed{.world_size = options.assume_ranks, .local_size = options.assume_ranks, .launcher = std::string(kAssumedLauncher)};
  assumed.job_id = "assumed";  // a launcher would give one, from which the group's secret can be made
  return assumed;
}

}  // namespace

/// What a start would find out by listening, and --check without it: a daemon with these options may be running.
Status check_addresses(const Prepared& prepared) {
  LOCKSTEP_RETURN_IF_ERROR(check_front_door(prepared.options, prepared.launch, prepared.front_door));
  if (prepared.launch.world_size == 1) {
    return {};  // has no peers
  }
  const Status peers = comm::check_peer_address(prepared.options.peer_bind, prepared.launch.local_size == prepared.launch.world_size);
  return peers ? peers : Error{peers.error().code, fmt::format("--peer-bind: {}", peers.error().message)};
}

int run_preflight(DaemonOptions options, const comm::LaunchInfo& launch, const comm::EnvironmentReader& environment) {
  const std::shared_ptr<spdlog::logger> logger = make_logger(launch.rank, launch.world_size, options.log_level);
  const auto refuse = [&](const Error& error) {
    logger->error("{}", error.message);
    return exit_code_of(error.code);
  };
  const Result<comm::LaunchInfo> group = assumed_launch(options, launch);
  if (!group) {
    return refuse(group.error());
  }
  const Result<Prepared> prepared = prepare(std::move(options), *group, environment, *logger);
  if (!prepared) {
    return refuse(prepared.error());
  }
  if (launch.rank == 0) {
    warn_of_unknown_variables(*logger);
  }
  if (const Status usable = prepared->options.check ? check_addresses(*prepared) : Status(); !usable) {
    return refuse(usable.error());
  }
  const GroupPlan plan = make_group_plan(*prepared);
  const Status fits = check_memory(plan, *prepared);
  if (!fits && prepared->options.check) {
    return refuse(fits.error());
  }
  if (!fits) {
    logger->warn("{}", fits.error().message);
  }
  if (launch.rank == 0) {
    fmt::print("{}", prepared->options.dry_run ? plan_text(plan, *prepared) : "");
    fmt::print("{}", prepared->options.check ? fmt::format("lockstepd: ok: {} can be served by {} rank{}\n", prepared->model.name, group->world_size,
                                                           group->world_size == 1 ? "" : "s")
                                             : "");
    static_cast<void>(std::fflush(stdout));
  }
  return kExitOk;
}

}  // namespace lockstep::daemon
