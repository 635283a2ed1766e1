#include "comm/nccl/plugin/nccl_communicator.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <sched.h>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "lockstep/comm/step_plan.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::comm::nccl {

namespace {

/// A limit for tickets that nobody waits for: a step has a handful.
constexpr std::size_t kPendingMax = 64;
/// One for the agreement, and two so that the exchanges of two micro-batches travel side by side.
constexpr std::size_t kExchangeChannels = 2;
constexpr std::size_t kChannels = 1 + kExchangeChannels;
/// How long the end waits for the other ranks, and a failure for the device: then it goes without them.
constexpr Duration kEndLimit = std::chrono::seconds(2);
/// As for the hosts' communicator: about what an exchange of a small step takes is spun, then the core is offered to others, and where ranks share cores a
/// peer that computes on ours gets it.
constexpr int kSpinPolls = 1000;
constexpr int kPollsPerCheck = 32;
constexpr int kYieldPolls = 64;
constexpr std::chrono::microseconds kNap{50};

/// Versions from here on keep the host's order of launches when told to.
constexpr int kImplicitOrderVersion = NCCL_VERSION(2, 26, 0);
constexpr const char* kImplicitOrder = "NCCL_LAUNCH_ORDER_IMPLICIT";
/// 0: NCCL does not order launches of graphs among other launches.
constexpr const char* kGraphMixing = "NCCL_GRAPH_MIXING_SUPPORT";
/// 1: NCCL maps the memory of captured calls into the peers, which that of a stream-ordered pool does not allow.
constexpr const char* kGraphRegister = "NCCL_GRAPH_REGISTER";

/// True: launches have to be chained by events. NCCL reads its variables when it first starts; what the user has set stays.
Result<bool> needs_event_chain(const NcclContext& context) {
  int version = 0;
  LOCKSTEP_RETURN_IF_ERROR(context.check(ncclGetVersion(&version), "ncclGetVersion", {}, nullptr));
  static std::once_flag once;  // getenv elsewhere may run beside setenv: as early and as seldom as possible
  std::call_once(once, [] {
    ::setenv(kImplicitOrder, "1", 0);
    ::setenv(kGraphRegister, "0", 0);
  });
  const char* const told = std::getenv(kImplicitOrder);
  const char* const mixing = std::getenv(kGraphMixing);
  const bool leaves_graphs_out = mixing != nullptr && std::string_view(mixing) == "0";
  return version < kImplicitOrderVersion || told == nullptr || std::string_view(told) != "1" || leaves_graphs_out;
}

/// Ends the start at once on all ranks where one of them cannot go on; others would wait for it until their time is up.
Status all_are_well(Communicator& control, const Status& ours, const Deadline& deadline) {
  constexpr std::int32_t kWell = std::numeric_limits<std::int32_t>::max();
  const std::int32_t word = ours ? kWell : control.rank();
  std::int32_t first = kWell;
  LOCKSTEP_ASSIGN_OR_RETURN(const Ticket ticket, control.start_all_reduce(std::span(&word, 1), ReduceOp::kMin));
  LOCKSTEP_RETURN_IF_ERROR(control.wait(ticket, std::span(&first, 1), deadline));
  LOCKSTEP_RETURN_IF_ERROR(Status(ours));
  if (first != kWell) {
    return Error{ErrorCode::kUnsupported, fmt::format("rank {}: rank {} cannot use NCCL; its log says why", control.rank(), first), first};
  }
  return {};
}

}  // namespace

NcclCommunicator::NcclCommunicator(std::unique_ptr<Communicator> control, std::shared_ptr<const NcclContext> context, bool chain_by_events, bool shares_cores)
    : control_(std::move(control)), context_(context), spin_polls_(shares_cores ? 0 : kSpinPolls), order_(std::move(context), chain_by_events) {}

Result<std::unique_ptr<Communicator>> NcclCommunicator::create(std::unique_ptr<Communicator> control, const CommOptions& options) {
  const Deadline deadline = Deadline::after(options.start_timeout);
  Result<std::shared_ptr<const NcclContext>> context = NcclContext::create(options);
  LOCKSTEP_RETURN_IF_ERROR(all_are_well(*control, context ? Status{} : Status(context.error()), deadline));
  LOCKSTEP_ASSIGN_OR_RETURN(const bool chain, needs_event_chain(**context));
  const bool shares_cores = available_core_count() < options.launch.local_size;
  std::unique_ptr<NcclCommunicator> made(new NcclCommunicator(std::move(control), *context, chain, shares_cores));
  LOCKSTEP_ASSIGN_OR_RETURN(made->pool_, StagingPool::create(*context));
  LOCKSTEP_RETURN_IF_ERROR(made->open_channels(deadline));
  LOCKSTEP_RETURN_IF_ERROR(made->choose_agreement_transport(options.agreement, deadline));
  return std::unique_ptr<Communicator>(std::move(made));
}

Status NcclCommunicator::share_ids(std::span<ncclUniqueId> ids, const Deadline& deadline) {
  if (rank() == 0) {
    for (ncclUniqueId& id : ids) {
      LOCKSTEP_RETURN_IF_ERROR(context_->check(ncclGetUniqueId(&id), "ncclGetUniqueId", {}, nullptr));
    }
  }
  // A broadcast: the others add zeros.
  std::vector<std::int32_t> words(ids.size_bytes() / sizeof(std::int32_t));
  std::memcpy(words.data(), ids.data(), ids.size_bytes());
  LOCKSTEP_ASSIGN_OR_RETURN(const Ticket ticket, control_->start_all_reduce(words, ReduceOp::kSum));
  LOCKSTEP_RETURN_IF_ERROR(control_->wait(ticket, words, deadline));
  std::memcpy(ids.data(), words.data(), ids.size_bytes());
  return {};
}

Status NcclCommunicator::open_channels(const Deadline& deadline) {
  std::array<ncclUniqueId, kChannels> ids{};
  LOCKSTEP_RETURN_IF_ERROR(share_ids(ids, deadline));
  for (std::size_t i = 0; i < kChannels; ++i) {
    // One after the other: ranks that made them in different orders would wait for each other.
    const ChannelOptions options{
        .name = i == 0 ? std::string("agreement") : fmt::format("exchange {}", i), .id = ids.at(i), .rank = rank(), .size = size(), .urgent = i == 0};
    LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<NcclChannel> channel, NcclChannel::start(context_, options));
    LOCKSTEP_RETURN_IF_ERROR(channel->wait_until_idle("ncclCommInitRankConfig", deadline));
    channels_.push_back(std::move(channel));
  }
  return {};
}

Result<DeviceCollectives*> NcclCommunicator::open_collectives(const Deadline& deadline) {
  LOCKSTEP_RETURN_IF_ERROR(check_startable("open_collectives"));
  if (collectives_) {
    return collectives_.get();
  }
  ncclUniqueId id{};
  LOCKSTEP_RETURN_IF_ERROR(fail(share_ids(std::span(&id, 1), deadline)));
  const ChannelOptions options{.name = "graphs", .id = id, .rank = rank(), .size = size(), .urgent = false};
  Result<std::unique_ptr<NcclChannel>> channel = NcclChannel::start(context_, options);
  Status made = channel ? (*channel)->wait_until_idle("ncclCommInitRankConfig", deadline) : Status(channel.error());
  // All members have it, or none: one that went without would wait for nobody, and the others for it.
  LOCKSTEP_RETURN_IF_ERROR(fail(all_are_well(*control_, made, deadline)));
  collectives_ = std::make_unique<GraphCollectives>(context_, std::move(*channel), static_cast<LaunchTurns&>(*this), order_);
  counted_.store(collectives_.get());
  return collectives_.get();
}

Status NcclCommunicator::take_turn(std::string_view what, const Deadline& deadline) {
  LOCKSTEP_RETURN_IF_ERROR(check_startable(what));
  const auto is_launched = [](const auto& operation) { return operation->phase() >= NcclOperation::Phase::kRunning; };
  const auto is_our_turn = [&]() -> Result<bool> { return std::ranges::all_of(pending_, is_launched); };
  return fail(poll(is_our_turn, what, deadline));
}

Status NcclCommunicator::choose_agreement_transport(AgreementTransport wish, const Deadline& deadline) {
  if (wish == AgreementTransport::kMeasured) {
    const std::size_t values = kStepFieldCount * static_cast<std::size_t>(size());
    LOCKSTEP_ASSIGN_OR_RETURN(const AgreementTimes times, measure_agreement(*control_, *this, values, deadline));
    wish = choose_agreement(times);
    const auto microseconds = [](Duration time) { return std::chrono::duration<double, std::micro>(time).count(); };
    agreement_reason_ = fmt::format("an all-reduce of {} values takes {:.1f} us by {} and {:.1f} us by {}", values, microseconds(times.host),
                                    control_->transport(), microseconds(times.device), transport());
  }
  host_agreement_ = wish == AgreementTransport::kHost;
  return {};
}

DeviceTraffic NcclCommunicator::device_traffic() const {
  DeviceTraffic sum;
  for (const std::unique_ptr<NcclChannel>& channel : channels_) {
    const DeviceTraffic traffic = channel->traffic();
    sum.sent_bytes += traffic.sent_bytes;
    sum.received_bytes += traffic.received_bytes;
  }
  if (const GraphCollectives* const graphs = counted_.load()) {
    const DeviceTraffic traffic = graphs->traffic();
    sum.sent_bytes += traffic.sent_bytes;
    sum.received_bytes += traffic.received_bytes;
  }
  return sum;
}

NcclCommunicator::~NcclCommunicator() {
  static_cast<void>(context_->bind());
  bool clean = !failure_ && settle();
  for (const std::unique_ptr<NcclChannel>& channel : channels_) {
    // Together with the others: a peer may still be taking what we sent.
    clean = clean && channel->finalize(Deadline::after(kEndLimit)).has_value();
  }
  clean = clean && (!collectives_ || collectives_->finalize(Deadline::after(kEndLimit)));
  if (!clean && !end_channels()) {
    // The device may still read and write these.
    for (auto* operations : {&pending_, &spare_}) {
      for (std::unique_ptr<NcclOperation>& operation : *operations) {
        static_cast<void>(operation.release());
      }
    }
  }
}

bool NcclCommunicator::settle() {
  const Deadline deadline = Deadline::after(kEndLimit);
  const auto is_released = [](const auto& operation) { return operation->is_released(); };
  while (!pending_.empty() && std::ranges::all_of(pending_, is_released) && progress() && deadline.check()) {
    std::this_thread::yield();
  }
  return pending_.empty();
}

bool NcclCommunicator::end_channels() {
  bool ended = true;
  if (collectives_) {
    collectives_->abort({ErrorCode::kPeerLost, "the communicator has ended"});
  }
  for (const std::unique_ptr<NcclChannel>& channel : channels_) {
    ended = channel->abort() && ended;
  }
  for (const std::unique_ptr<NcclChannel>& channel : channels_) {
    ended = channel->drain(Deadline::after(kEndLimit)) && ended;
  }
  return ended;
}

Status NcclCommunicator::fail(Status status) {
  if (!status && !failure_) {
    failure_ = status.error().message;
    for (const std::unique_ptr<NcclChannel>& channel : channels_) {
      channel->abort();
    }
    if (collectives_) {
      collectives_->abort(status.error());
    }
  }
  return status;
}

Status NcclCommunicator::check_startable(std::string_view call) const {
  if (failure_) {
    return Error{ErrorCode::kPeerLost, fmt::format("rank {}: {} after a failure: {}", rank(), call, *failure_)};
  }
  if (pending_.size() + forwarded_.size() >= kPendingMax) {
    return Error{ErrorCode::kResourceExhausted, fmt::format("rank {}: {} with {} operations in flight: wait for some first", rank(), call, kPendingMax)};
  }
  return context_->bind();
}

std::unique_ptr<NcclOperation> NcclCommunicator::take_spare(std::size_t channel) {
  NcclChannel& wanted = *channels_[channel];
  const auto found = std::ranges::find_if(spare_, [&](const auto& operation) { return &operation->channel() == &wanted; });
  if (found == spare_.end()) {
    return std::make_unique<NcclOperation>(context_, pool_, wanted);
  }
  std::unique_ptr<NcclOperation> operation = std::move(*found);
  spare_.erase(found);
  return operation;
}

Result<Ticket> NcclCommunicator::add_pending(std::unique_ptr<NcclOperation> operation, Status started) {
  LOCKSTEP_RETURN_IF_ERROR(fail(std::move(started)));
  pending_.push_back(std::move(operation));
  // It may be able to go on at once; and what started earlier gets a chance. What fails then is for the wait to tell: this operation has started.
  if (Status status = progress(); !status && !unreported_) {
    unreported_ = std::move(status).error();
  }
  return Ticket{next_id_++};
}

Result<Ticket> NcclCommunicator::start_all_reduce(std::span<const std::int32_t> values, ReduceOp op) {
  if (values.empty()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("rank {}: all_reduce of nothing; at least one value is needed", rank())};
  }
  LOCKSTEP_RETURN_IF_ERROR(check_startable("start_all_reduce"));
  if (host_agreement_) {
    LOCKSTEP_ASSIGN_OR_RETURN(const Ticket ticket, control_->start_all_reduce(values, op));
    forwarded_.push_back({.id = next_id_, .ticket = ticket});
    return Ticket{next_id_++};
  }
  std::unique_ptr<NcclOperation> operation = take_spare(0);
  Status started = operation->start_all_reduce(next_id_, values, op);
  return add_pending(std::move(operation), std::move(started));
}

Result<Ticket> NcclCommunicator::start_all_to_all(const AllToAll& exchange) {
  const auto members = static_cast<std::size_t>(size());
  if (exchange.send.size() != members || exchange.receive.size() != members) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("rank {}: all_to_all with {} sends and {} receives; {} of each are needed, empty ones included",
                                                          rank(), exchange.send.size(), exchange.receive.size(), members)};
  }
  LOCKSTEP_RETURN_IF_ERROR(check_startable("start_all_to_all"));
  // In turn, by a number that is the same on all ranks.
  std::unique_ptr<NcclOperation> operation = take_spare(1 + exchanges_++ % kExchangeChannels);
  Status started = operation->start_all_to_all(next_id_, exchange, *control_);
  return add_pending(std::move(operation), std::move(started));
}

Result<Ticket> NcclCommunicator::start_device_all_to_all(const DeviceAllToAll& exchange) {
  LOCKSTEP_RETURN_IF_ERROR(check_startable("start_device_all_to_all"));
  std::unique_ptr<NcclOperation> operation = take_spare(1 + static_cast<std::size_t>(exchange.lane) % kExchangeChannels);
  Status started = operation->start_device_all_to_all(next_id_, exchange, *control_);
  return add_pending(std::move(operation), std::move(started));
}

NcclOperation* NcclCommunicator::find(Ticket ticket) const {
  const auto found = std::ranges::find(pending_, ticket.id, [](const auto& operation) { return operation->id(); });
  LOCKSTEP_CHECK(found != pending_.end(), "rank {}: ticket {} was never given out, or was waited for already", rank(), ticket.id);
  return found->get();
}

std::vector<NcclCommunicator::Forwarded>::iterator NcclCommunicator::find_forwarded(Ticket ticket) {
  return std::ranges::find(forwarded_, ticket.id, &Forwarded::id);
}

Status NcclCommunicator::progress() {
  if (unreported_) {
    return *unreported_;
  }
  bool may_launch = true;
  std::array<bool, kChannels> runs{};
  for (const std::unique_ptr<NcclOperation>& operation : pending_) {
    LOCKSTEP_RETURN_IF_ERROR(operation->advance(*control_, order_, may_launch));
    may_launch = may_launch && operation->phase() >= NcclOperation::Phase::kRunning;
    const auto channel = std::ranges::find(channels_, &operation->channel(), [](const auto& each) { return each.get(); });
    runs.at(static_cast<std::size_t>(channel - channels_.begin())) |= operation->phase() == NcclOperation::Phase::kRunning;
  }
  for (std::size_t i = 0; i < channels_.size(); ++i) {
    if (runs.at(i)) {
      LOCKSTEP_RETURN_IF_ERROR(channels_[i]->is_idle());
    }
  }
  if (collectives_) {
    LOCKSTEP_RETURN_IF_ERROR(collectives_->check());
  }
  collect_released();
  return {};
}

void NcclCommunicator::collect_released() {
  const auto is_over = [](const auto& operation) { return operation->is_released() && operation->phase() == NcclOperation::Phase::kComplete; };
  for (std::unique_ptr<NcclOperation>& operation : pending_) {
    if (is_over(operation)) {
      spare_.push_back(std::move(operation));
    }
  }
  std::erase(pending_, nullptr);
}

template <typename IsDone>
Status NcclCommunicator::poll(const IsDone& is_done, std::string_view what, const Deadline& deadline) {
  for (int polls = 0;; ++polls) {
    LOCKSTEP_RETURN_IF_ERROR(progress());
    LOCKSTEP_ASSIGN_OR_RETURN(const bool done, is_done());
    if (done) {
      return {};
    }
    const bool spinning = polls < spin_polls_;
    if (spinning && polls % kPollsPerCheck != 0) {
      continue;
    }
    if (Status status = deadline.check(); !status) {
      return late(std::move(status), what, deadline);
    }
    if (spin_polls_ == 0 && polls >= kYieldPolls) {
      std::this_thread::sleep_for(kNap);  // tidy-ok: NCCL offers nothing to block on; between two polls of a loop with a deadline
    } else if (!spinning) {
      sched_yield();
    }
  }
}

Status NcclCommunicator::late(Status expired, std::string_view what, const Deadline& deadline) {
  // A watch that ended the wait has said who is at fault.
  const bool is_unexplained = expired.error().code == ErrorCode::kTimeout;
  std::string reason = is_unexplained ? "; NCCL does not tell which ranks have not come" : "";
  for (const std::unique_ptr<NcclOperation>& operation : pending_) {
    if (is_unexplained && operation->phase() == NcclOperation::Phase::kSizes) {
      // The hosts' communicator knows who has not sent its sizes; nothing behind this one is launched.
      const Status missing = operation->blame(*control_, deadline);
      reason = missing ? "" : fmt::format("; {} has no sizes: {}", operation->describe(), missing.error().message);
      break;
    }
  }
  expired.error().message = fmt::format("rank {}: {}: {}{}", rank(), what, expired.error().message, reason);
  return expired;
}

Result<bool> NcclCommunicator::test(Ticket ticket) {
  if (failure_) {
    return Error{ErrorCode::kPeerLost, fmt::format("rank {}: test after a failure: {}", rank(), *failure_)};
  }
  LOCKSTEP_RETURN_IF_ERROR(context_->bind());
  LOCKSTEP_RETURN_IF_ERROR(fail(progress()));
  if (const auto found = find_forwarded(ticket); found != forwarded_.end()) {
    return control_->test(found->ticket);
  }
  const NcclOperation& operation = *find(ticket);
  return operation.is_of_device() ? operation.is_enqueued() : operation.phase() == NcclOperation::Phase::kComplete;
}

Status NcclCommunicator::complete(NcclOperation& operation, const Deadline& deadline) {
  const auto is_done = [&]() -> Result<bool> { return operation.phase() == NcclOperation::Phase::kComplete; };
  LOCKSTEP_RETURN_IF_ERROR(poll(is_done, operation.describe(), deadline));
  return operation.status();
}

Status NcclCommunicator::wait_forwarded(Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline) {
  const Ticket theirs = find_forwarded(ticket)->ticket;
  // Not the other's wait: exchanges that started before have to be launched meanwhile, or the peers that wait for those never come here.
  const auto is_done = [&]() -> Result<bool> { return pending_.empty() ? Result<bool>(true) : control_->test(theirs); };
  LOCKSTEP_RETURN_IF_ERROR(poll(is_done, fmt::format("all_reduce {}", ticket.id), deadline));
  LOCKSTEP_RETURN_IF_ERROR(control_->wait(theirs, result, deadline));
  forwarded_.erase(find_forwarded(ticket));
  return {};
}

void NcclCommunicator::give_back(const NcclOperation& operation) {
  const auto found = std::ranges::find(pending_, &operation, [](const auto& candidate) { return candidate.get(); });
  spare_.push_back(std::move(*found));
  pending_.erase(found);
}

Status NcclCommunicator::wait(Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline) {
  if (failure_) {
    return Error{ErrorCode::kPeerLost, fmt::format("rank {}: wait after a failure: {}", rank(), *failure_)};
  }
  LOCKSTEP_RETURN_IF_ERROR(context_->bind());
  if (find_forwarded(ticket) != forwarded_.end()) {
    return fail(wait_forwarded(ticket, result, deadline));
  }
  NcclOperation& operation = *find(ticket);
  LOCKSTEP_CHECK(operation.is_all_reduce(), "rank {}: {} is no all_reduce", rank(), operation.describe());
  LOCKSTEP_RETURN_IF_ERROR(fail(complete(operation, deadline)));
  LOCKSTEP_CHECK(result.size() == operation.reduced().size(), "rank {}: wait into {} values for {} of {}", rank(), result.size(), operation.describe(),
                 operation.reduced().size());
  std::ranges::copy(operation.reduced(), result.begin());
  give_back(operation);
  return {};
}

Status NcclCommunicator::wait_all_to_all(Ticket ticket, std::span<std::size_t> received_bytes, const Deadline& deadline) {
  if (failure_) {
    return Error{ErrorCode::kPeerLost, fmt::format("rank {}: wait_all_to_all after a failure: {}", rank(), *failure_)};
  }
  LOCKSTEP_RETURN_IF_ERROR(context_->bind());
  NcclOperation& operation = *find(ticket);
  LOCKSTEP_CHECK(!operation.is_all_reduce() && received_bytes.size() == static_cast<std::size_t>(size()),
                 "rank {}: received_bytes has {} entries for {} of {} ranks", rank(), received_bytes.size(), operation.describe(), size());
  LOCKSTEP_RETURN_IF_ERROR(fail(complete(operation, deadline)));
  operation.deliver(received_bytes);
  give_back(operation);
  return {};
}

Status NcclCommunicator::wait_until_enqueued(Ticket ticket, const Deadline& deadline) {
  if (failure_) {
    return Error{ErrorCode::kPeerLost, fmt::format("rank {}: wait_until_enqueued after a failure: {}", rank(), *failure_)};
  }
  LOCKSTEP_RETURN_IF_ERROR(context_->bind());
  NcclOperation& operation = *find(ticket);
  LOCKSTEP_CHECK(operation.is_of_device(), "rank {}: {} is none of the device's memory", rank(), operation.describe());
  const auto is_enqueued = [&operation]() -> Result<bool> { return operation.is_enqueued(); };
  LOCKSTEP_RETURN_IF_ERROR(fail(poll(is_enqueued, operation.describe(), deadline)));
  LOCKSTEP_RETURN_IF_ERROR(fail(Status(operation.status())));
  operation.release();
  collect_released();
  return {};
}

Status NcclCommunicator::check() {
  if (failure_) {
    return Error{ErrorCode::kPeerLost, fmt::format("rank {}: messages between devices have failed: {}", rank(), *failure_)};
  }
  LOCKSTEP_RETURN_IF_ERROR(context_->bind());
  return fail(progress());
}

}  // namespace lockstep::comm::nccl
