#include "daemon/daemon.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <future>
#include <memory>
#include <new>
#include <optional>
#include <pthread.h>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fmt/format.h>

#include "daemon/api/embeddings/embedding_service.hpp"
#include "daemon/api/embeddings/output_fork.hpp"
#include "daemon/api/generation_service.hpp"
#include "daemon/api/tokenize/tokenize_service.hpp"
#include "daemon/front_door/front_door.hpp"
#include "daemon/group/group_start.hpp"
#include "daemon/group/rank_runner.hpp"
#include "daemon/http/answer_worker.hpp"
#include "daemon/lifecycle/life_monitor.hpp"
#include "daemon/lifecycle/log.hpp"
#include "daemon/lifecycle/service_notifier.hpp"
#include "daemon/lifecycle/signals/held_signals.hpp"
#include "daemon/lifecycle/signals/signal_policy.hpp"
#include "daemon/lifecycle/start_facts.hpp"
#include "daemon/metrics/metrics.hpp"
#include "daemon/metrics/step_log.hpp"
#include "daemon/options/options.hpp"
#include "daemon/preflight/environment_checks.hpp"
#include "daemon/preflight/exit_status.hpp"
#include "daemon/preflight/group_plan.hpp"
#include "daemon/preflight/preflight.hpp"
#include "daemon/preflight/prepared.hpp"
#include "daemon/routes.hpp"
#include "daemon/served_model/served_model.hpp"
#include "daemon/trace/trace_observer.hpp"
#include "daemon/trace/trace_report.hpp"
#include "lockstep/core/exit_codes.hpp"
#include "lockstep/core/time_slice.hpp"

namespace lockstep::daemon {
namespace {

// The backend bounds its own start; this is for one that does not come back at all.
constexpr Duration kStartGrace = std::chrono::seconds(2);
// How long answers may take to reach their clients when the process is about to end.
constexpr Duration kLastWords = std::chrono::seconds(1);
constexpr Duration kLastWordsPoll = std::chrono::milliseconds(2);
constexpr int kRetryAfterSeconds = 1;

/// The standard library's word for "no memory" must not end the process before peers and clients are told. What the runner owns is still there afterwards.
Status run_to_the_end(RankRunner& runner) {
  try {
    return runner.run();
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::kResourceExhausted, "out of memory: start more ranks, each holds fewer experts, or use a machine with more memory"};
  }
}

MetricsOptions metrics_options(const Prepared& prepared, const ForwardTimingTracker& forward_timings) {
  return {.rank = prepared.launch.rank,
          .world_size = prepared.launch.world_size,
          .version = LOCKSTEP_VERSION,
          .model = prepared.model.name,
          .device = prepared.options.device,
          .load_format = prepared.model.load_format,
          .transport = prepared.launch.world_size == 1 ? "local" : "mpi",
          .micro_batches = prepared.options.micro_batches == kMicroBatchesAuto ? "auto" : std::to_string(prepared.options.micro_batches),
          .forward_timings = &forward_timings};
}

ApiContext api_context(const Prepared& prepared) {
  const ServedModel& model = prepared.model;
  return {.served_names = model.names,
          .tokenizer = model.tokenizer.get(),
          .chat_template = model.chat_template.get(),
          .vocabulary_size = model.config.vocabulary_size,
          .defaults = model.generation_defaults,
          .refuses_special_tokens = prepared.options.special_tokens_in_messages == SpecialTokensInMessages::kRefuse};
}

std::int64_t max_model_len(const Prepared& prepared) {
  const std::int64_t context = prepared.model.config.context_length;
  return prepared.options.max_model_len == 0 ? context : std::min<std::int64_t>(context, prepared.options.max_model_len);
}

/// One rank: the Asio thread (the main one) and the step thread, and what they share.
/// Members are in the order of their making; the io_context is destroyed last of what uses it.
class Daemon {
 public:
  Daemon(Prepared prepared, const DaemonHooks& hooks, const comm::EnvironmentReader& environment, spdlog::logger& logger)
      : prepared_(std::move(prepared)),
        logger_(logger),
        notifier_(environment),
        metrics_(Metrics::create(metrics_options(prepared_, forward_timings_))),
        step_log_(logger.should_log(spdlog::level::trace) ? std::make_unique<StepLog>(metrics_->step_observer(), logger) : nullptr),
        trace_(step_log_ ? *step_log_ : metrics_->step_observer()),
        generation_(GenerationService::create(io_, {.context = api_context(prepared_)})),
        embeddings_(EmbeddingService::create(io_, {.context = {.api = api_context(prepared_), .hidden_size = prepared_.model.config.hidden_size},
                                                   .pooling = prepared_.options.embedding_pooling})),
        tokenize_(TokenizeService::create(io_, {.context = {.api = api_context(prepared_), .max_model_len = max_model_len(prepared_)}})),
        life_(LifeMonitor::create(
            {.rank = prepared_.launch.rank, .world_size = prepared_.launch.world_size, .stall_timeout = prepared_.options.stall_timeout},
            {.io = &io_, .progress = &progress_, .notifier = &notifier_, .metrics = metrics_.get(), .logger = &logger_, .on_ready = [this] { on_ready(); }})),
        signals_(SignalPolicy::create(
            io_, prepared_.options.drain_timeout,
            {.drain = [this] { drain(); }, .stop = [this] { stop(); }, .exit = [this] { leave(kExitInternal); }, .reload = [this] { front_door_.reload(); }})),
        start_guard_(io_),
        last_words_timer_(io_),
        front_door_(io_, prepared_.options, prepared_.launch, std::move(prepared_.front_door), logger_),
        runner_(rank_parts(hooks), rank_events()) {}

  /// Opens the ports, runs both threads, returns the exit status. `held` are released once they are listened to.
  int run(HeldSignals& held);
  void set_check_time(Duration duration) { metrics_->set_start_phase("check", duration); }

 private:
  RankParts rank_parts(const DaemonHooks& hooks);
  RankEvents rank_events();
  Status open_http();
  void step_thread();
  void fail(const Error& error);
  void on_ready();
  void close_gates(const ApiError& error);
  void drain();
  void stop();
  void finish_when_quiet(int code, bool by_exit, TimePoint limit);
  [[noreturn]] void leave(int code);
  void run_on_asio(const std::function<void()>& task);

  Prepared prepared_;
  spdlog::logger& logger_;
  ServiceNotifier notifier_;
  ForwardTimingTracker forward_timings_;  ///< the engine records, metrics and /debug/forward_timings read
  std::unique_ptr<Metrics> metrics_;      // before the io_context: HTTP connections report to it until they are destroyed
  std::unique_ptr<StepLog> step_log_;     ///< only at level trace
  TraceObserver trace_;
  TraceReportSource trace_reports_{trace_.ring()};
  comm::StepProgress progress_;
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{io_.get_executor()};
  std::unique_ptr<GenerationService> generation_;
  std::unique_ptr<EmbeddingService> embeddings_;
  OutputFork outputs_{generation_->sink(), embeddings_->sink()};
  std::unique_ptr<TokenizeService> tokenize_;
  AnswerWorker answers_{io_};
  std::unique_ptr<LifeMonitor> life_;
  std::unique_ptr<SignalPolicy> signals_;
  boost::asio::steady_timer start_guard_;
  boost::asio::steady_timer last_words_timer_;
  FrontDoor front_door_;
  scheduler::Engine* engine_ = nullptr;  // Asio's view of the runner's, while it is there
  comm::PeerChannel* peers_ = nullptr;   // likewise
  bool drain_wanted_ = false;
  bool stop_wanted_ = false;
  int exit_code_ = kExitOk;
  RankRunner runner_;
};

RankParts Daemon::rank_parts(const DaemonHooks& hooks) {
  return {.options = &prepared_.options,
          .hooks = &hooks,
          .launch = prepared_.launch,
          .core_count = prepared_.facts.cores_per_rank,
          .secret = prepared_.secret,
          .model = &prepared_.model,
          .io = &io_,
          .progress = &progress_,
          .timing_tracker = &forward_timings_,
          .sink = &outputs_,
          .observer = &trace_};
}

RankEvents Daemon::rank_events() {
  return {.on_phase = [this](std::string_view phase,
                             Duration duration) { boost::asio::post(io_, [this, phase, duration] { metrics_->set_start_phase(phase, duration); }); },
          .on_communicator =
              [this](const comm::Communicator& communicator, const std::string& note) {
                boost::asio::post(io_, [this, &communicator, note] {
                  metrics_->set_communicator(&communicator);
                  if (!note.empty()) {
                    logger_.info("{}", note);
                  }
                });
              },
          .on_peers =
              [this](comm::PeerChannel& peers) {
                boost::asio::post(io_, [this, &peers] {
                  life_->set_peers(&peers);
                  peers.set_report_source(&trace_reports_);
                  peers_ = &peers;
                });
              },
          .on_device = [this](device::Device& device) { boost::asio::post(io_, [this, &device] { metrics_->set_device(device); }); },
          .on_engine =
              [this](scheduler::Engine& engine) {
                boost::asio::post(io_, [this, &engine] {
                  start_guard_.cancel();
                  engine_ = &engine;
                  logger_.info("configuration hash {:#018x}: {}", engine.config_hash(), engine.config_identity());
                  life_->set_engine(&engine);
                  life_->set_state(LifeState::kLoading);
                  if (stop_wanted_) {
                    engine.request_stop();
                  } else if (drain_wanted_) {
                    engine.request_drain();
                  }
                });
              },
          .on_loaded = [this] { boost::asio::post(io_, [this] { life_->set_state(LifeState::kWarming); }); },
          .before_farewell =
              [this] {
                run_on_asio([this] {
                  close_gates({.status = 503, .message = "this server is stopping", .code = "draining", .retry_after_seconds = kRetryAfterSeconds});
                  generation_->detach_engine();
                  embeddings_->detach_engine();
                  life_->set_state(LifeState::kDraining);
                  life_->set_engine(nullptr);
                  life_->set_peers(nullptr);
                  metrics_->set_communicator(nullptr);
                  peers_ = nullptr;
                  engine_ = nullptr;
                });
              }};
}

Status Daemon::open_http() {
  const DaemonOptions& options = prepared_.options;
  std::vector<Route> routes = make_routes({.generation = generation_.get(),
                                           .tokenize = tokenize_.get(),
                                           .embeddings = embeddings_.get(),
                                           .life = life_.get(),
                                           .metrics = metrics_.get(),
                                           .forward_timings = &forward_timings_,
                                           .trace = &trace_.ring(),
                                           .peers = &peers_,
                                           .worker = &answers_,
                                           .rank = prepared_.launch.rank,
                                           .rank_count = prepared_.launch.world_size,
                                           .version = LOCKSTEP_VERSION,
                                           .models = prepared_.model.names,
                                           .max_model_len = max_model_len(prepared_),
                                           .needs_key = front_door_.needs_key(),
                                           .metrics_elsewhere = !options.metrics_address.empty()});
  metrics_->add_routes(routes);
  return front_door_.open(std::move(routes), metrics_->http_observer());
}

int Daemon::run(HeldSignals& held) {
  if (const Status opened = open_http(); !opened) {
    logger_.error("{}", opened.error().message);
    return exit_code_of(opened.error().code);
  }
  signals_->start();
  held.release();  // before the step thread is made: MPI must not inherit the mask, for itself or for what it starts
  life_->start();
  start_guard_.expires_after(prepared_.options.start_timeout + kStartGrace);
  start_guard_.async_wait([this](boost::system::error_code cancelled) {
    if (!cancelled) {
      logger_.error("the group of {} ranks did not start within --start-timeout {:.1f} s: some rank did not come, or MPI does not answer",
                    prepared_.launch.world_size, std::chrono::duration<double>(prepared_.options.start_timeout).count());
      leave(kExitPeerLost);
    }
  });
  std::jthread step([this] { step_thread(); });
  // Once the step thread has been made, which must not inherit it: while this thread waits for a core, all clients wait.
  ask_for_time_slice(kShortTimeSlice);
  io_.run();
  step.join();
  return exit_code_;
}

void Daemon::step_thread() {
  pthread_setname_np(pthread_self(), "steps");
  if (const Status status = run_to_the_end(runner_); !status) {
    fail(status.error());
    return;
  }
  boost::asio::post(io_, [this] {
    logger_.info("the group has ended; bye");
    // By _exit where there was MPI: when a rank died meanwhile, a thread still hangs in MPI_Finalize, and exit() would tear MPI's libraries down under it.
    finish_when_quiet(kExitOk, prepared_.launch.world_size > 1, std::chrono::steady_clock::now() + kLastWords);
  });
}

/// The group is over for this rank: peers and clients are told, then the process leaves without touching what MPI may still use.
void Daemon::fail(const Error& error) {
  const comm::ProgressReport at = progress_.report();
  // An engine that has stopped says in its message where it was.
  const std::string place =
      at.phase == comm::StepPhase::kStopped ? std::string() : fmt::format(" in step {}, {}, layer {}", at.step, comm::step_phase_name(at.phase), at.layer);
  logger_.error("{}{}: {}; exit {}", error_code_name(error.code), place, error.message, exit_code_of(error.code));
  const int code = exit_code_of(error.code);
  boost::asio::post(io_, [this] {
    life_->set_state(LifeState::kFaulted);
    close_gates({.status = 503, .message = "the serving group has failed; try another server", .code = "rank_lost", .retry_after_seconds = kRetryAfterSeconds});
  });
  // Before this process can end: peers that find the connection closed first would name this rank instead of the cause.
  runner_.report(error);
  boost::asio::post(io_, [this, code] { finish_when_quiet(code, true, std::chrono::steady_clock::now() + kLastWords); });
  std::promise<void> never;
  // The Asio thread ends the process before this runs out, unless it is stuck.
  static_cast<void>(never.get_future().wait_for(2 * kLastWords));
  leave(code);
}

void Daemon::on_ready() {
  generation_->open_gate(*engine_);
  embeddings_->open_gate(*engine_);
  if (const std::string& graphs = engine_->graph_report(); !graphs.empty()) {
    logger_.info("{}", graphs);
  }
  logger_.info("serving {} at {}", prepared_.model.name, front_door_.url());
}

void Daemon::close_gates(const ApiError& error) {
  generation_->close_gate(error);
  embeddings_->close_gate(error);
}

void Daemon::drain() {
  logger_.info("asked to drain: accepted requests finish, new ones are refused");
  drain_wanted_ = true;
  if (engine_ != nullptr) {
    engine_->request_drain();
  } else if (life_->state() == LifeState::kInit) {
    logger_.info("asked to end before the group had started");
    leave(kExitOk);
  }
}

void Daemon::stop() {
  logger_.warn("asked to stop: requests that are not finished are cancelled");
  stop_wanted_ = true;
  if (engine_ != nullptr) {
    engine_->request_stop();
  }
}

/// Ends once every answer has been written, or at `limit`.
void Daemon::finish_when_quiet(int code, bool by_exit, TimePoint limit) {
  if (std::chrono::steady_clock::now() < limit && (generation_->open_count() + embeddings_->open_count() > 0 || !front_door_.idle())) {
    last_words_timer_.expires_after(kLastWordsPoll);
    last_words_timer_.async_wait([this, code, by_exit, limit](boost::system::error_code) { finish_when_quiet(code, by_exit, limit); });
    return;
  }
  if (by_exit) {
    leave(code);
  }
  exit_code_ = code;
  start_guard_.cancel();
  signals_->stop();
  life_->stop();
  front_door_.close();
  work_.reset();
  io_.stop();
}

void Daemon::leave(int code) {
  front_door_.remove_socket_file();
  logger_.flush();
  std::_Exit(code);
}

/// Runs `task` on the Asio thread and waits for it: without a limit, as that thread never blocks and the engine must not be destroyed under it.
void Daemon::run_on_asio(const std::function<void()>& task) {
  std::promise<void> done;
  boost::asio::post(io_, [&] {
    task();
    done.set_value();
  });
  done.get_future().wait();
}

int run_rank(DaemonOptions options, const comm::LaunchInfo& launch, const DaemonHooks& hooks, const comm::EnvironmentReader& environment, HeldSignals& held) {
  const TimePoint started = std::chrono::steady_clock::now();
  std::signal(SIGPIPE, SIG_IGN);  // a log pipe whose reader is gone must not end the group
  const std::shared_ptr<spdlog::logger> logger = make_logger(launch.rank, launch.world_size, options.log_level);
  Result<Prepared> prepared = prepare(std::move(options), launch, environment, *logger);
  if (!prepared) {
    logger->error("{}", prepared.error().message);
    return exit_code_of(prepared.error().code);
  }
  if (prepared->device_memory_bytes > 0) {  // a host may swap; a device refuses, after minutes of loading
    if (const Status fits = check_memory(make_group_plan(*prepared), *prepared); !fits) {
      logger->error("{}", fits.error().message);
      return exit_code_of(fits.error().code);
    }
  }
  log_start_facts(*logger, prepared->facts, launch, prepared->model.name);
  if (launch.rank == 0) {
    warn_of_unknown_variables(*logger);
  }
  for (const std::string& setting : prepared->options.given) {
    logger->debug("option {}", setting);
  }
  Daemon daemon(std::move(*prepared), hooks, environment, *logger);
  daemon.set_check_time(std::chrono::steady_clock::now() - started);
  return daemon.run(held);
}

}  // namespace

int run_daemon(int argc, char** argv, const DaemonHooks& hooks) {
  HeldSignals held;
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  const comm::EnvironmentReader environment = comm::process_environment();
  auto parsed = parse_options(arguments, environment, LOCKSTEP_VERSION);
  if (const EarlyExit* early = std::get_if<EarlyExit>(&parsed)) {
    fmt::print(early->code == kExitOk ? stdout : stderr, "{}", early->text);
    return early->code;
  }
  const Result<comm::LaunchInfo> launch = comm::read_launch_info(environment);
  if (!launch) {
    fmt::print(stderr, "lockstepd: {}\n", launch.error().message);
    return exit_code_of(launch.error().code);
  }
  DaemonOptions& options = std::get<DaemonOptions>(parsed);
  if (wants_preflight(options)) {
    held.release();  // nothing to drain
    return run_preflight(std::move(options), *launch, environment);
  }
  return run_rank(std::move(options), *launch, hooks, environment, held);
}

}  // namespace lockstep::daemon
