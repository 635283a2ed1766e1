#include "daemon/group/rank_runner.hpp"

#include <chrono>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <fmt/format.h>

#include "daemon/group/group_start.hpp"
#include "lockstep/comm/communicator_choice.hpp"

namespace lockstep::daemon {
namespace {

// A goodbye and a report are one small packet a peer: what does not go out in this time goes to a peer that is gone.
constexpr Duration kFlushLimit = std::chrono::milliseconds(500);

/// Tells how long a phase took, when it is left.
class PhaseTimer {
 public:
  PhaseTimer(std::string_view phase, const RankEvents& events) : phase_(phase), events_(events) {}
  ~PhaseTimer() { events_.on_phase(phase_, std::chrono::steady_clock::now() - started_); }
  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

 private:
  std::string_view phase_;
  const RankEvents& events_;
  TimePoint started_ = std::chrono::steady_clock::now();
};

}  // namespace

RankRunner::RankRunner(RankParts parts, RankEvents events) : parts_(std::move(parts)), events_(std::move(events)) {}

RankRunner::~RankRunner() = default;

Status RankRunner::run() {
  LOCKSTEP_RETURN_IF_ERROR(join_group());
  if (parts_.hooks->before_load) {
    parts_.hooks->before_load(parts_.launch);
  }
  LOCKSTEP_RETURN_IF_ERROR(make_engine());
  {
    const PhaseTimer timer("load", events_);
    LOCKSTEP_RETURN_IF_ERROR(engine_->load_weights());
  }
  events_.on_loaded();
  {
    const PhaseTimer timer("warmup", events_);
    LOCKSTEP_RETURN_IF_ERROR(engine_->warm_up());
  }
  if (Status status = engine_->run(); !status) {
    return name_the_late(std::move(status).error());
  }
  leave_group();
  return {};
}

Status RankRunner::join_group() {
  const Deadline deadline = Deadline::after(parts_.options->start_timeout);
  if (parts_.hooks->before_communicator) {
    parts_.hooks->before_communicator(parts_.launch);
  }
  {
    const PhaseTimer timer("comm", events_);
    LOCKSTEP_RETURN_IF_ERROR(make_communicator());
  }
  if (parts_.hooks->wrap_communicator) {
    communicator_ = parts_.hooks->wrap_communicator(std::move(communicator_));
  }
  const PhaseTimer timer("peers", events_);
  return parts_.launch.world_size == 1 ? Status{} : connect_peers(deadline);
}

Status RankRunner::make_communicator() {
  const comm::CommOptions options{.launch = parts_.launch, .start_timeout = parts_.options->start_timeout, .current_step = [progress = parts_.progress] {
                                    return progress->report().step;
                                  }};
  if (parts_.launch.world_size == 1) {
    LOCKSTEP_ASSIGN_OR_RETURN(communicator_, comm::make_communicator("local", options));
    return {};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<comm::Communicator> hosts, comm::make_communicator("mpi", options));
  LOCKSTEP_ASSIGN_OR_RETURN(const device::DeviceBackend* const backend, device::find_device_backend(parts_.options->device));
  const comm::CommunicatorWish wish{.name = parts_.options->communicator, .computes_on_device = !backend->host_memory};
  LOCKSTEP_ASSIGN_OR_RETURN(comm::CommunicatorChoice choice, comm::choose_communicator(std::move(hosts), wish, options));
  communicator_ = std::move(choice.communicator);
  events_.on_communicator(*communicator_, choice.note);
  return {};
}

Status RankRunner::connect_peers(const Deadline& deadline) {
  const comm::GroupView view = comm::GroupView::initial(communicator_->size(), communicator_->rank());
  comm::PeerChannelOptions options;
  options.secret = parts_.secret;
  options.bind_address = parts_.options->peer_bind;
  if (parts_.options->peer_port != 0) {
    options.port = static_cast<std::uint16_t>(parts_.options->peer_port + parts_.launch.local_rank);  // check_start saw that it fits
  }
  options.heartbeat_interval = parts_.options->heartbeat_interval;
  options.stall_timeout = parts_.options->stall_timeout;
  options.single_host = parts_.launch.local_size == parts_.launch.world_size;
  LOCKSTEP_ASSIGN_OR_RETURN(peers_, comm::PeerChannel::create(*parts_.io, view, *parts_.progress, std::move(options)));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<comm::PeerEndpoint> endpoints, exchange_endpoints(*communicator_, peers_->endpoint(), deadline));
  LOCKSTEP_RETURN_IF_ERROR(peers_->connect(endpoints, deadline));
  events_.on_peers(*peers_);
  return {};
}

Status RankRunner::make_engine() {
  const DaemonOptions& options = *parts_.options;
  LOCKSTEP_ASSIGN_OR_RETURN(device_, device::make_device(options.device, {.local_rank = parts_.launch.local_rank,
                                                                          .local_size = parts_.launch.local_size,
                                                                          .core_count = parts_.core_count,
                                                                          .batch_invariant = options.batch_invariant,
                                                                          .current_step = [progress = parts_.progress] { return progress->report().step; }}));
  events_.on_device(*device_);
  scheduler::EngineParts engine_parts{.config = &parts_.model->config,
                                      .weights = parts_.model->weights.get(),
                                      .device = device_.get(),
                                      .communicator = communicator_.get(),
                                      .view = comm::GroupView::initial(communicator_->size(), communicator_->rank()),
                                      .progress = parts_.progress,
                                      .wake_sender = peers_.get(),
                                      .watch = peers_.get(),
                                      .sink = parts_.sink,
                                      .observer = parts_.observer,
                                      .timing_tracker = parts_.timing_tracker};
  LOCKSTEP_ASSIGN_OR_RETURN(engine_, scheduler::Engine::create(engine_options(options), std::move(engine_parts)));
  if (peers_) {
    peers_->set_wake_receiver(engine_.get());
  }
  events_.on_engine(*engine_);
  return {};
}

Error RankRunner::name_the_late(Error error) const {
  if (error.code != ErrorCode::kTimeout || !peers_) {
    return error;
  }
  // Who waits in MPI only knows that something is missing. A rank whose process is well but whose step thread stands still shows by its heartbeats, which tell
  // how far it has come; they are newer than the moment at which this rank began to wait.
  // A process that was stopped sends none: this wait may end just before the channel calls its rank lost, and the last that it told may be that it waits, too.
  const double silence_seconds = std::chrono::duration<double>(parts_.options->stall_timeout).count() / 2;
  std::string late;
  for (const comm::PeerState& peer : peers_->states()) {
    const bool is_silent = peer.heartbeat_age_seconds > silence_seconds;
    if ((is_silent || !comm::waits_for_peers(peer.progress.phase)) && peer.progress.phase != comm::StepPhase::kStopped) {
      const std::string silence = is_silent ? fmt::format(" and no heartbeat for {:.1f} s", peer.heartbeat_age_seconds) : std::string();
      late += fmt::format("{}rank {} (at step {}, {}){}", late.empty() ? "" : ", ", peer.member, peer.progress.step, comm::step_phase_name(peer.progress.phase),
                          silence);
      error.rank = error.rank.value_or(peer.member);
    }
  }
  error.message += late.empty() ? std::string() : fmt::format("; not arrived: {}", late);
  return error;
}

void RankRunner::leave_group() {
  events_.before_farewell();
  if (peers_) {
    peers_->set_wake_receiver(nullptr);
    peers_->say_goodbye();
    static_cast<void>(peers_->flush(Deadline::after(kFlushLimit)));  // a peer that is gone already needs no goodbye
  }
  engine_.reset();
  communicator_.reset();  // MPI_Finalize, on the thread that called MPI_Init
}

void RankRunner::report(const Error& error) {
  if (peers_) {
    peers_->report_failure(error);
    static_cast<void>(peers_->flush(Deadline::after(kFlushLimit)));
  }
}

}  // namespace lockstep::daemon
