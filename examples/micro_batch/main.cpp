// A batch of rows goes through a "model" in micro-batches: first plainly, then with compute and communication overlapped, then with an adaptive size.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <vector>

#include "lockstep/micro_batch.hpp"

namespace {

using lockstep::MicroBatchInfo;
using lockstep::Status;

std::vector<float> model(std::span<const float> rows) {
  std::vector<float> result;
  for (const float row : rows) {
    result.push_back(2 * row);
  }
  return result;
}

/// The seed's own example: walk, record, gather. Outputs come in batch order, here although the last rows go first.
std::vector<float> plain(std::span<const float> rows) {
  lockstep::MicroBatchContext<std::vector<float>> context({.batch_size = static_cast<std::int32_t>(rows.size()), .micro_batch_size = 8});
  for (const auto& [micro_batch, slice] : context.iterate_with_data(rows, 1, [](const MicroBatchInfo& info) { return info.index; })) {
    std::printf("rows %d to %d\n", micro_batch.start, micro_batch.end - 1);
    context.record_output(model(slice));
  }
  return context.gather_and_concat();
}

/// While one micro-batch's result travels on a communication stream, the next computes.
std::vector<float> overlapped(std::span<const float> rows) {
  std::vector<float> sent(rows.size());
  lockstep::StreamManager streams;
  lockstep::MicroBatchContext<std::vector<float>> context(
      {.batch_size = static_cast<std::int32_t>(rows.size()), .micro_batch_size = 8, .stream_manager = &streams});
  std::vector<std::unique_ptr<lockstep::device::Event>> computed;
  for (const MicroBatchInfo& info : context.iterate()) {
    const auto index = info.index;
    const auto slice = rows.subspan(static_cast<std::size_t>(info.start), static_cast<std::size_t>(info.size));
    info.compute_stream->enqueue([&context, slice, index]() -> Status {
      context.record_output(model(slice), index);
      return {};
    });
    computed.push_back(streams.make_event());
    info.compute_stream->record_event(*computed.back());
    info.comm_stream->wait_event(*computed.back());
    info.comm_stream->enqueue([out = &sent[static_cast<std::size_t>(info.start)], slice]() -> Status {
      for (std::size_t i = 0; i < slice.size(); ++i) {
        out[i] = 2 * slice[i];  // in a group: a collective over this micro-batch's rows
      }
      return {};
    });
  }
  std::vector<float> outputs = context.gather_and_concat();
  return sent == outputs ? outputs : std::vector<float>{};
}

/// The size follows the time that micro-batches take: these are quick, so it grows.
bool adaptive(std::span<const float> rows) {
  const auto context = lockstep::create_micro_batch_context<std::vector<float>>(static_cast<std::int32_t>(rows.size()), 2, true);
  for (const auto& [micro_batch, slice] : context->iterate_with_data(rows)) {
    context->record_output(model(slice));
  }
  const lockstep::MicroBatchStats stats = context->stats();
  std::printf("%d micro-batches, the next would have %d rows, %.3f ms each\n", stats.num_micro_batches, stats.micro_batch_size, stats.mean_ms);
  return context->gather_and_concat() == model(rows);
}

}  // namespace

int main() {
  std::vector<float> rows(30);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i] = static_cast<float>(i);
  }
  const std::vector<float> expected = model(rows);
  return plain(rows) == expected && overlapped(rows) == expected && adaptive(rows) ? 0 : 1;
}
