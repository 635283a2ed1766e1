// Goal    Contexts do what the reference of the seed's does, wherever ours does not differ on purpose.
// Method  Recorded random traces (tests/reference/contexts_reference.py), walked with as many threads as there.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_to.hpp>
#include <gtest/gtest.h>

#include "lockstep/micro_batch.hpp"

namespace lockstep {
namespace {

namespace json = boost::json;

json::object read_traces() {
  std::ifstream file(std::filesystem::path(LOCKSTEP_TEST_DATA) / "context_traces.json");
  return json::parse(std::string(std::istreambuf_iterator<char>(file), {})).as_object();
}

std::int32_t number(const json::value& value) {
  return value.to_number<std::int32_t>();
}

/// Walks the trace's batch with its threads: each micro-batch goes to one of them.
void walk(MicroBatchContext<std::vector<std::int32_t>>& context) {
  for (const MicroBatchInfo& info : context.iterate()) {
    std::vector<std::int32_t> rows;
    for (std::int32_t row = info.start; row < info.end; ++row) {
      rows.push_back(3 * row + 1);
    }
    context.record_output(std::move(rows));
  }
  context.wait_barrier();
}

TEST(ContextReference, MicroBatchesAreCutGivenStreamsAndGatheredAsThere) {
  const json::object traces = read_traces();
  ASSERT_EQ(traces.at("micro_batch").as_array().size(), 60U);
  for (const json::value& value : traces.at("micro_batch").as_array()) {
    const json::object& trace = value.as_object();
    SCOPED_TRACE(json::serialize(trace.at("batch_size")) + " by " + json::serialize(trace.at("micro_batch_size")));
    StreamManager streams({.num_compute_streams = number(trace.at("num_compute_streams")), .num_comm_streams = number(trace.at("num_comm_streams"))});
    std::vector<const StreamHandle*> compute;  // the pools in the order in which they are handed out; a full turn, so that the walk begins where it began
    std::vector<const StreamHandle*> comm;
    for (std::int32_t i = 0; i < number(trace.at("num_compute_streams")); ++i) {
      compute.push_back(&streams.get_compute_stream());
    }
    for (std::int32_t i = 0; i < number(trace.at("num_comm_streams")); ++i) {
      comm.push_back(&streams.get_comm_stream());
    }
    const int threads = number(trace.at("num_threads"));
    MicroBatchContext<std::vector<std::int32_t>> context({.batch_size = number(trace.at("batch_size")),
                                                          .micro_batch_size = number(trace.at("micro_batch_size")),
                                                          .num_threads = threads,
                                                          .stream_manager = &streams,
                                                          .adaptive = trace.at("adaptive").as_bool(),
                                                          .min_micro_batch = number(trace.at("min_micro_batch")),
                                                          .max_micro_batch = number(trace.at("max_micro_batch"))});
    std::vector<std::jthread> others;
    for (int i = 1; i < threads; ++i) {
      others.emplace_back([&context] { walk(context); });
    }
    walk(context);
    others.clear();
    EXPECT_EQ(context.gather_and_concat(), json::value_to<std::vector<std::int32_t>>(trace.at("rows")));
    const json::array& expected = trace.at("micro_batches").as_array();
    ASSERT_EQ(context.num_micro_batches(), static_cast<std::int32_t>(expected.size()));
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const MicroBatchInfo info = context.info(static_cast<std::int32_t>(i));
      const json::array& there = expected[i].as_array();
      EXPECT_EQ(info.start, number(there[1]));
      EXPECT_EQ(info.end, number(there[2]));
      if (threads == 1) {  // ours gives a stream to a micro-batch when it is entered: with several threads that is in their order
        EXPECT_EQ(info.compute_stream, compute[static_cast<std::size_t>(number(there[3]))]);
        EXPECT_EQ(info.comm_stream, comm[static_cast<std::size_t>(number(there[4]))]);
      }
    }
  }
}

BatchDescriptor descriptor_of(const json::value& value) {
  const json::array& fields = value.as_array();
  return {.num_tokens = number(fields[0]),
          .num_reqs = fields[1].is_null() ? std::optional<std::int32_t>() : number(fields[1]),
          .uniform = fields[2].as_bool(),
          .has_lora = fields[3].as_bool()};
}

TEST(ContextReference, CountsDescriptorsAndTokenNumbersAreThoseOfTheReference) {
  const json::object traces = read_traces();
  for (const json::value& value : traces.at("context").as_array()) {
    const json::object& trace = value.as_object();
    const DPMetadata metadata = DPMetadata::make(number(trace.at("world_size")), number(trace.at("rank")), number(trace.at("total")));
    const std::vector<std::int32_t> counts(metadata.tokens_per_rank().begin(), metadata.tokens_per_rank().end());
    EXPECT_EQ(counts, json::value_to<std::vector<std::int32_t>>(trace.at("counts")));
    EXPECT_EQ(metadata.get_local_tokens(), number(trace.at("local")));
    EXPECT_EQ(metadata.get_total_tokens(), number(trace.at("sum")));
    const BatchDescriptor descriptor = descriptor_of(trace.at("descriptor_fields"));
    EXPECT_EQ(descriptor.relaxed(), descriptor_of(trace.at("relaxed")));
    EXPECT_EQ(descriptor.with_num_tokens(7), descriptor_of(trace.at("with_7_tokens")));
    const json::object& parts = trace.at("parts").as_object();
    ForwardContextOptions options;
    if (!parts.at("num_tokens").is_null()) {
      options.num_tokens = number(parts.at("num_tokens"));
    }
    if (parts.at("descriptor").as_bool()) {
      options.batch_descriptor = descriptor;
    }
    options.dp_metadata = parts.at("dp_metadata").as_bool() ? &metadata : nullptr;
    EXPECT_EQ(create_forward_context(options).get_num_tokens(), number(trace.at("answer"))) << json::serialize(trace);
  }
}

TEST(ContextReference, NestedScopesShowWhatTheyShowThere) {
  const json::object traces = read_traces();
  for (const json::value& value : traces.at("nesting").as_array()) {
    const json::array& program = value.as_object().at("program").as_array();
    const json::array& seen = value.as_object().at("seen").as_array();
    std::vector<std::unique_ptr<ForwardContext>> contexts;
    std::vector<std::unique_ptr<set_forward_context>> scopes;
    for (std::size_t step = 0; step < program.size(); ++step) {
      if (number(program[step]) == 1) {
        contexts.push_back(std::make_unique<ForwardContext>(create_forward_context({.num_tokens = static_cast<std::int32_t>(step)})));
        scopes.push_back(std::make_unique<set_forward_context>(*contexts.back()));
      } else {
        scopes.pop_back();
      }
      EXPECT_EQ(is_forward_context_available() ? get_forward_context().get_num_tokens() : -1, number(seen[step])) << "step " << step;
    }
    while (!scopes.empty()) {
      scopes.pop_back();  // the innermost first
    }
    EXPECT_FALSE(is_forward_context_available());
  }
}

TEST(ContextReference, TheTrackersStatisticsAreThoseOfTheReference) {
  const json::object traces = read_traces();
  for (const json::value& value : traces.at("tracker").as_array()) {
    ForwardTimingTracker tracker;
    for (const json::value& record : value.as_object().at("records").as_array()) {
      tracker.record(number(record.as_array()[0]), record.as_array()[1].to_number<double>());
    }
    const std::vector<ForwardTimingTracker::Stats> stats = tracker.get_stats();
    const json::array& expected = value.as_object().at("stats").as_array();
    ASSERT_EQ(stats.size(), expected.size());
    for (std::size_t i = 0; i < stats.size(); ++i) {
      const json::array& there = expected[i].as_array();
      EXPECT_EQ(stats[i].batch_size, number(there[0]));
      EXPECT_EQ(stats[i].count, there[1].to_number<std::uint64_t>());
      const std::vector<double> ours = {stats[i].mean_ms, stats[i].p50_ms, stats[i].p99_ms, stats[i].min_ms, stats[i].max_ms};
      for (std::size_t k = 0; k < ours.size(); ++k) {
        EXPECT_NEAR(ours[k], there[k + 2].to_number<double>(), 1e-9);
      }
    }
  }
}

}  // namespace
}  // namespace lockstep
