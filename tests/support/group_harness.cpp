#include "tests/support/group_harness.hpp"

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"
#include "lockstep/core/hash.hpp"
#include "tests/support/test_device.hpp"

namespace lockstep::tests {

namespace {
/// Far beyond any sane run, also under sanitizers on a loaded machine: reached only by a hang.
constexpr std::chrono::seconds kHangLimit(240);
}  // namespace

std::vector<std::unique_ptr<comm::Communicator>> make_communicators(comm::LocalGroup& group, int size) {
  std::vector<std::unique_ptr<comm::Communicator>> made;
  for (int rank = 0; rank < size; ++rank) {
    made.push_back(group.communicator(rank));
  }
  const std::string wanted = test_variable("LOCKSTEP_TEST_COMM", "local");
  if (wanted == "local" || size == 1) {
    return made;
  }
  const auto backend = std::ranges::find(comm::comm_backends(), wanted, &comm::CommBackend::name);
  LOCKSTEP_CHECK(backend != comm::comm_backends().end() && backend->make_over != nullptr, "LOCKSTEP_TEST_COMM={}", wanted);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      std::unique_ptr<comm::Communicator>& mine = made[static_cast<std::size_t>(rank)];
      Result<std::unique_ptr<comm::Communicator>> over = backend->make_over(
          std::move(mine),
          {.launch = {.rank = rank, .world_size = size, .local_rank = rank, .local_size = size}, .plugin_folder = test_variable("LOCKSTEP_TEST_PLUGINS", "")});
      LOCKSTEP_CHECK(over.has_value(), "{}: {}", wanted, over.error().message);
      mine = std::move(*over);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return made;
}

/// One engine with everything that it borrows.
struct GroupHarness::Rank final : scheduler::OutputSink, scheduler::StepObserver, comm::WakeSender {
  GroupHarness* harness = nullptr;
  int index = 0;
  std::unique_ptr<device::Device> device;
  std::unique_ptr<comm::Communicator> communicator;
  std::unique_ptr<model::WeightSource> weights;
  comm::StepProgress progress;
  std::unique_ptr<scheduler::Engine> engine;
  std::thread thread;
  std::optional<Status> status;  // under the harness's mutex
  bool loaded = false;           // under the harness's mutex
  std::int64_t sleeps = 0;       // steps that put the group to sleep; under the harness's mutex
  std::mutex counters_mutex;
  RankCounters counters;

  void deliver(std::span<const scheduler::TokenEvent> events) override {
    const std::lock_guard lock(harness->mutex_);
    for (const scheduler::TokenEvent& event : events) {
      Completion& completion = harness->completions_[event.request];
      LOCKSTEP_CHECK(!completion.finish.has_value(), "request {} gets an event after its end", event.request);
      if (event.of_prompt) {
        LOCKSTEP_CHECK(completion.tokens.empty(), "request {} gets a token of its prompt after a generated one", event.request);
        completion.prompt_tokens.push_back(event.token);
        completion.prompt_log_probabilities.push_back(event.log_probability);
        completion.prompt_likeliest.emplace_back(event.likeliest.begin(), event.likeliest.end());
      } else if (event.token >= 0) {
        completion.tokens.push_back(event.token);
        completion.log_probabilities.push_back(event.log_probability);
        completion.likeliest.emplace_back(event.likeliest.begin(), event.likeliest.end());
      }
      completion.embedding.assign(event.embedding.begin(), event.embedding.end());
      completion.finish = event.finish;
      if (event.error != nullptr) {
        completion.error = event.error->message;
      }
    }
    harness->changed_.notify_all();
  }

  void on_step(const scheduler::StepRecord& record) override {
    if (record.action == comm::StepAction::kSleep) {
      const std::lock_guard lock(harness->mutex_);
      ++sleeps;
      harness->changed_.notify_all();
    }
    const std::lock_guard lock(counters_mutex);
    ++counters.steps;
    counters.running_steps += record.action == comm::StepAction::kRun ? 1 : 0;
    counters.split_steps += record.nonempty_micro_batches >= 2 ? 1 : 0;
    counters.requests_in_step_max = std::max(counters.requests_in_step_max, record.requests);
    counters.dropped_rows += record.dropped_rows;
    counters.crossed_rows += record.crossed_rows;
    counters.late_steps[record.late_member] += 1;
    counters.micro_batch_steps[record.micro_batch_reason] += record.action == comm::StepAction::kRun ? 1 : 0;
    counters.kv_balance_min = std::min(counters.kv_balance_min, record.kv_balance);
  }
  void on_queue(const scheduler::QueueRecord& record) override {
    const std::lock_guard lock(counters_mutex);
    counters.queue = record;
  }
  void on_request_finished(const scheduler::RequestRecord& record) override {
    const std::lock_guard lock(counters_mutex);
    counters.prefill_chunks_max = std::max(counters.prefill_chunks_max, record.prefill_chunks);
  }
  void on_collective(const scheduler::CollectiveRecord& record) override {
    const std::lock_guard lock(counters_mutex);
    ++counters.collectives;
    const std::string text = fmt::format("{} {} {} {};", static_cast<int>(record.kind), record.step, record.layer, record.micro_batch);
    counters.collective_hash = fnv1a(text, counters.collective_hash == 0 ? fnv1a("") : counters.collective_hash);
  }

  void broadcast_wake(std::int32_t epoch, std::int64_t step) override {
    for (const std::unique_ptr<Rank>& other : harness->ranks_) {
      if (other->index == index) {
        continue;
      }
      const auto deliver_wake = [receiver = other->engine.get(), from = index, epoch, step] { receiver->on_wake(from, epoch, step); };
      if (harness->options_.carry_wake) {
        harness->options_.carry_wake(index, other->index, deliver_wake);
      } else {
        deliver_wake();
      }
    }
  }
};

GroupHarness::GroupHarness(GroupOptions options) : options_(std::move(options)), local_group_(options_.world_size, options_.hooks) {
  std::vector<std::unique_ptr<comm::Communicator>> communicators = make_communicators(local_group_, options_.world_size);
  for (int index = 0; index < options_.world_size; ++index) {
    auto rank = std::make_unique<Rank>();
    rank->harness = this;
    rank->index = index;
    rank->device = make_test_device(test_device_name(), index);
    rank->communicator = std::move(communicators[static_cast<std::size_t>(index)]);
    if (options_.wrap) {
      rank->communicator = options_.wrap(index, std::move(rank->communicator));
    }
    rank->weights = options_.make_weights();
    scheduler::EngineOptions engine_options = options_.engine;
    engine_options.graphs = test_graph_mode();
    if (options_.adjust) {
      options_.adjust(index, engine_options);
    }
    Result<std::unique_ptr<scheduler::Engine>> engine =
        scheduler::Engine::create(engine_options, {.config = &options_.config,
                                                   .weights = rank->weights.get(),
                                                   .device = rank->device.get(),
                                                   .communicator = rank->communicator.get(),
                                                   .view = comm::GroupView::initial(options_.world_size, index),
                                                   .progress = &rank->progress,
                                                   .wake_sender = options_.world_size > 1 ? rank.get() : nullptr,
                                                   .sink = rank.get(),
                                                   .observer = rank.get()});
    LOCKSTEP_CHECK(engine.has_value(), "Engine::create: {}", engine.error().message);
    rank->engine = std::move(*engine);
    ranks_.push_back(std::move(rank));
  }
  for (const std::unique_ptr<Rank>& rank : ranks_) {  // only now: a wake reaches every engine
    rank->thread = std::thread([this, raw = rank.get()] { run_rank(*raw); });
  }
}

void GroupHarness::run_rank(Rank& rank) {
  Status status = rank.engine->load();
  if (status) {
    {
      const std::lock_guard lock(mutex_);
      rank.loaded = true;
    }
    changed_.notify_all();
    status = rank.engine->run();
  }
  {
    const std::lock_guard lock(mutex_);
    rank.status = std::move(status);
  }
  changed_.notify_all();
}

GroupHarness::~GroupHarness() {
  if (!ranks_.empty()) {
    ranks_.front()->engine->request_stop();
  }
  join();
  // Together: a communicator may wait for the others to end.
  std::vector<std::thread> threads;
  for (const std::unique_ptr<Rank>& rank : ranks_) {
    threads.emplace_back([raw = rank.get()] {
      raw->engine.reset();
      raw->communicator.reset();
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

void GroupHarness::wait_on(const std::function<bool()>& done, const std::string& what) {
  std::unique_lock lock(mutex_);
  const bool in_time = changed_.wait_for(lock, kHangLimit, done);
  LOCKSTEP_CHECK(in_time, "hang: waited {} s for {}", kHangLimit.count(), what);
}

void GroupHarness::wait_until_running() {
  wait_on([this] { return std::ranges::all_of(ranks_, [](const auto& rank) { return rank->loaded || rank->status.has_value(); }); }, "all ranks to load");
}

Status GroupHarness::submit(int rank, scheduler::GenerationRequest request) {
  return engine(rank).submit(std::move(request));
}

void GroupHarness::cancel(int rank, scheduler::RequestId id) {
  engine(rank).cancel(id);
}

Completion GroupHarness::wait(scheduler::RequestId id) {
  wait_on([this, id] { return completions_[id].finish.has_value(); }, fmt::format("the end of request {}", id));
  const std::lock_guard lock(mutex_);
  return completions_[id];
}

scheduler::Engine& GroupHarness::engine(int rank) {
  return *ranks_[static_cast<std::size_t>(rank)]->engine;
}

std::size_t GroupHarness::token_count(scheduler::RequestId id) {
  const std::lock_guard lock(mutex_);
  return completions_[id].tokens.size();
}

void GroupHarness::wait_for_tokens(scheduler::RequestId id, std::size_t count) {
  wait_on([this, id, count] { return completions_[id].tokens.size() >= count || completions_[id].finish.has_value(); },
          fmt::format("{} tokens of request {}", count, id));
}

void GroupHarness::wait_for_sleeps(int rank, std::int64_t times) {
  const Rank& chosen = *ranks_[static_cast<std::size_t>(rank)];
  std::int64_t wanted = times;
  {
    const std::lock_guard lock(mutex_);
    wanted += chosen.sleeps;
  }
  wait_on([&chosen, wanted] { return chosen.sleeps >= wanted; }, fmt::format("{} sleeps of rank {}", times, rank));
}

void GroupHarness::drain(int rank) {
  engine(rank).request_drain();
}

std::vector<Status> GroupHarness::join() {
  wait_on([this] { return std::ranges::all_of(ranks_, [](const auto& rank) { return rank->status.has_value(); }); }, "all ranks to leave");
  std::vector<Status> statuses;
  for (const std::unique_ptr<Rank>& rank : ranks_) {
    if (rank->thread.joinable()) {
      rank->thread.join();
    }
    statuses.push_back(*rank->status);
  }
  return statuses;
}

RankCounters GroupHarness::counters(int rank) {
  Rank& chosen = *ranks_[static_cast<std::size_t>(rank)];
  const std::lock_guard lock(chosen.counters_mutex);
  return chosen.counters;
}

std::string agreement_name(scheduler::AgreementMode mode) {
  return mode == scheduler::AgreementMode::kSync ? "Sync" : "Pipelined";
}

model::ModelConfig small_config() {
  model::ModelConfig config;
  config.architecture = "Qwen3MoeForCausalLM";
  config.vocabulary_size = 96;
  config.hidden_size = 32;
  config.layer_count = 2;
  config.query_heads = 2;
  config.kv_heads = 1;
  config.head_size = 16;
  config.context_length = 256;
  config.dense_width = 32;
  config.expert_count = 6;
  config.experts_per_token = 2;
  config.expert_width = 16;
  config.normalize_top_k = true;
  config.layer_is_sparse = {1, 1};
  config.end_token_ids = {1};
  config.source = "tests/support";
  return config;
}

scheduler::GenerationRequest greedy_request(scheduler::RequestId id, std::vector<std::int32_t> prompt, std::int32_t max_tokens) {
  scheduler::GenerationRequest request;
  request.id = id;
  request.prompt_token_ids = std::move(prompt);
  request.sampling.temperature = 0.0F;
  request.sampling.log_probabilities = 0;
  request.max_tokens = max_tokens;
  return request;
}

}  // namespace lockstep::tests
