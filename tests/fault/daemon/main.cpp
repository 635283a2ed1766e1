// lockstepd_with_faults: lockstepd, whole, with one rank that holds still or lies when the test's driver says so. Never installed.
#include <utility>

#include <fmt/format.h>

#include "daemon/daemon.hpp"
#include "lockstep/core/exit_codes.hpp"
#include "tests/fault/daemon/fault_plan.hpp"
#include "tests/fault/daemon/faulty_communicator.hpp"

int main(int argc, char** argv) {
  using namespace lockstep;
  const comm::EnvironmentReader environment = comm::process_environment();
  const auto launch = comm::read_launch_info(environment);
  const auto plan = launch ? tests::FaultPlan::read(environment, launch->rank) : launch.error();
  if (!plan) {
    fmt::print(stderr, "lockstepd_with_faults: {}\n", plan.error().message);
    return kExitBadInput;
  }
  if (plan->fault == tests::Fault::kNone) {
    return daemon::run_daemon(argc, argv, {});
  }
  auto gate = tests::Gate::open(plan->gate);
  if (!gate) {
    fmt::print(stderr, "lockstepd_with_faults: {}\n", gate.error().message);
    return kExitBadInput;
  }
  daemon::DaemonHooks hooks;
  if (plan->fault == tests::Fault::kHoldBeforeCommunicator) {
    hooks.before_communicator = [&gate](const comm::LaunchInfo&) { gate->hold(); };
  } else if (plan->fault == tests::Fault::kHoldBeforeLoad) {
    hooks.before_load = [&gate](const comm::LaunchInfo&) { gate->hold(); };
  } else {
    hooks.wrap_communicator = [&gate, fault = plan->fault](std::unique_ptr<comm::Communicator> inner) {
      return tests::make_faulty_communicator(std::move(inner), fault, std::move(*gate));
    };
  }
  return daemon::run_daemon(argc, argv, hooks);
}
