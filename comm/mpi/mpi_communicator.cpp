#include "comm/mpi/mpi_communicator.hpp"

#include <algorithm>
#include <chrono>
#include <sched.h>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "comm/mpi/mpi_backend.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::comm {

namespace {

/// A limit for tickets that nobody waits for: a step has a handful. Far below the number of tags.
constexpr std::size_t kPendingMax = 256;

/// How often MPI is asked before the core is offered to others, where every rank has one: about 100 us, more than an exchange of a small step takes.
constexpr int kSpinPolls = 1000;
/// While spinning, a look at the clock and the watch every few microseconds is enough.
constexpr int kPollsPerCheck = 32;
/// Where ranks share cores, a peer that has not come after kSpinPolls yields computes, on a core that our yields keep taking back for a moment. Measured on 2
/// cores with 7 ranks, 2 of them computing for 5 waiting ones, on a busy machine: 12.0, 22.0 and 26.8 s with naps, 21.5, 29.7 and 34.7 s without, in turn.
/// The price is at most a nap at the end of a wait of a millisecond or more.
constexpr std::chrono::microseconds kNap{50};

}  // namespace

MpiCommunicator::MpiCommunicator(std::unique_ptr<MpiRuntime> runtime, bool shares_cores)
    // Where ranks share a core, the peer that we wait for runs only when we stop looking.
    : runtime_(std::move(runtime)), spin_polls_(shares_cores ? 0 : kSpinPolls) {}

MpiCommunicator::~MpiCommunicator() {
  if (pending_.empty()) {
    return;
  }
  // MPI still reads and writes the buffers of these operations, and nothing but their completion ends that.
  for (std::unique_ptr<MpiOperation>& operation : pending_) {
    static_cast<void>(operation.release());
  }
  runtime_->abandon();
}

MpiCommunicator::Entered::Entered(MpiCommunicator& communicator) : inside_(communicator.inside_) {
  LOCKSTEP_CHECK(!inside_.exchange(true, std::memory_order_acquire), "rank {}: two threads in MPI at once", communicator.rank());
}

Status MpiCommunicator::fail(Status status) {
  if (!status) {
    failure_ = status.error().message;
    runtime_->abandon();
  }
  return status;
}

Status MpiCommunicator::check_usable(std::string_view call) const {
  if (failure_) {
    return Error{ErrorCode::kPeerLost, fmt::format("rank {}: {} after a failed operation ({})", rank(), call, *failure_)};
  }
  return {};
}

Status MpiCommunicator::check_startable(std::string_view call) const {
  if (pending_.size() >= kPendingMax) {
    return Error{ErrorCode::kResourceExhausted, fmt::format("rank {}: {} with {} operations in flight; wait for some first", rank(), call, pending_.size())};
  }
  return check_usable(call);
}

std::unique_ptr<MpiOperation> MpiCommunicator::take_spare() {
  if (spare_.empty()) {
    return std::make_unique<MpiOperation>();
  }
  std::unique_ptr<MpiOperation> operation = std::move(spare_.back());
  spare_.pop_back();
  return operation;
}

Result<Ticket> MpiCommunicator::add_pending(std::unique_ptr<MpiOperation> operation, Status started) {
  // Also after a failure: some of its requests may be under way.
  pending_.push_back(std::move(operation));
  LOCKSTEP_RETURN_IF_ERROR(fail(std::move(started)));
  return Ticket{next_id_++};
}

Result<Ticket> MpiCommunicator::start_all_reduce(std::span<const std::int32_t> values, ReduceOp op) {
  const Entered entered(*this);
  if (values.empty()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("rank {}: all_reduce of 0 values; at least 1 is needed, an idle rank sends zeros", rank())};
  }
  LOCKSTEP_RETURN_IF_ERROR(check_startable("start_all_reduce"));
  LOCKSTEP_RETURN_IF_ERROR(MpiOperation::check(values, rank()));
  std::unique_ptr<MpiOperation> operation = take_spare();
  Status started = operation->start_all_reduce(*runtime_, next_id_, values, op);
  return add_pending(std::move(operation), std::move(started));
}

Result<Ticket> MpiCommunicator::start_all_to_all(const AllToAll& exchange) {
  const Entered entered(*this);
  const auto members = static_cast<std::size_t>(size());
  if (exchange.send.size() != members || exchange.receive.size() != members) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("rank {}: all_to_all with {} sends and {} receives; {} of each are needed, empty ones included",
                                                          rank(), exchange.send.size(), exchange.receive.size(), members)};
  }
  LOCKSTEP_RETURN_IF_ERROR(check_startable("start_all_to_all"));
  LOCKSTEP_RETURN_IF_ERROR(MpiOperation::check(exchange, rank()));
  std::unique_ptr<MpiOperation> operation = take_spare();
  Status started = operation->start_all_to_all(*runtime_, next_id_, exchange);
  return add_pending(std::move(operation), std::move(started));
}

MpiOperation& MpiCommunicator::pending(Ticket ticket) const {
  const auto found = std::ranges::find(pending_, ticket.id, [](const auto& operation) { return operation->id(); });
  LOCKSTEP_CHECK(found != pending_.end(), "rank {}: ticket {} was never given out, or was waited for already", rank(), ticket.id);
  return **found;
}

Result<bool> MpiCommunicator::test(Ticket ticket) {
  const Entered entered(*this);
  LOCKSTEP_RETURN_IF_ERROR(check_usable("test"));
  return pending(ticket).poll();
}

Status MpiCommunicator::complete(MpiOperation& operation, const Deadline& deadline) {
  // Ends by the deadline at the latest. A sched_yield that finds nobody else to run costs 0.3 us; one that is left out where ranks share a core costs the
  // whole time slice of the scheduler (measured: 8 ms for an all-reduce that takes 9 us).
  for (int polls = 0; !operation.poll(); polls = std::min(polls + 1, kSpinPolls)) {
    const bool spinning = polls < spin_polls_;
    if (spinning && polls % kPollsPerCheck != 0) {
      continue;
    }
    if (Status status = deadline.check(); !status) {
      if (operation.poll()) {
        break;  // it came while we were off the core (stopped, say): then the time that passed is no peer's fault
      }
      const std::string missing = operation.missing_peers();
      status.error().message = fmt::format("rank {}: {}: {}{}{}", rank(), operation.describe(), status.error().message, missing.empty() ? "" : "; ", missing);
      return status;
    }
    if (spin_polls_ == 0 && polls == kSpinPolls) {
      std::this_thread::sleep_for(kNap);  // tidy-ok: MPI offers nothing to block on; between two polls of a loop with a deadline
    } else if (!spinning) {
      sched_yield();
    }
  }
  return operation.status();
}

void MpiCommunicator::give_back(const MpiOperation& operation) {
  const auto found = std::ranges::find(pending_, &operation, [](const auto& candidate) { return candidate.get(); });
  spare_.push_back(std::move(*found));
  pending_.erase(found);
}

Status MpiCommunicator::wait(Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline) {
  const Entered entered(*this);
  LOCKSTEP_RETURN_IF_ERROR(check_usable("wait"));
  MpiOperation& operation = pending(ticket);
  LOCKSTEP_CHECK(operation.is_all_reduce() && result.size() == operation.reduced().size(), "rank {}: wait into {} values for {} of {}", rank(), result.size(),
                 operation.describe(), operation.reduced().size());
  LOCKSTEP_RETURN_IF_ERROR(fail(complete(operation, deadline)));
  std::ranges::copy(operation.reduced(), result.begin());
  give_back(operation);
  return {};
}

Status MpiCommunicator::wait_all_to_all(Ticket ticket, std::span<std::size_t> received_bytes, const Deadline& deadline) {
  const Entered entered(*this);
  LOCKSTEP_RETURN_IF_ERROR(check_usable("wait_all_to_all"));
  MpiOperation& operation = pending(ticket);
  LOCKSTEP_CHECK(!operation.is_all_reduce() && received_bytes.size() == static_cast<std::size_t>(size()),
                 "rank {}: received_bytes has {} entries for {} of {} ranks", rank(), received_bytes.size(), operation.describe(), size());
  LOCKSTEP_RETURN_IF_ERROR(fail(complete(operation, deadline)));
  operation.deliver(received_bytes);
  give_back(operation);
  return {};
}

Result<std::unique_ptr<Communicator>> make_mpi_communicator(const CommOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<MpiRuntime> runtime, MpiRuntime::create(options));
  // Ranks that are bound to one core each look like ranks that share it; they pay 0.3 us a poll for that, the other mistake would cost milliseconds.
  const bool shares_cores = available_core_count() < options.launch.local_size;
  std::unique_ptr<Communicator> communicator = std::make_unique<MpiCommunicator>(std::move(runtime), shares_cores);
  return communicator;
}

}  // namespace lockstep::comm
