#include "scheduler/step/graphs/step_graphs.hpp"

#include <algorithm>
#include <chrono>

#include "lockstep/core/check.hpp"

namespace lockstep::scheduler {

namespace {

constexpr std::int32_t kSizeStep = 8;
/// A stretch that is not done after this long never will be: the device hangs.
constexpr Duration kWarmUpLimit = std::chrono::seconds(60);

/// What reads rows that an exchange has brought reads as many as came, and where the exchange has put them.
bool is_captured(const ProgramEntry& entry) {
  switch (entry.stage) {
    case Stage::kEmbed:
    case Stage::kAttention:
    case Stage::kDense:
    case Stage::kHead:
      return true;
    case Stage::kExperts:
      return entry.wait == StepEvent::kNone;  // rows come to them within the device
    case Stage::kDispatch:
    case Stage::kCombine:
    case Stage::kWeigh:
      break;
  }
  return false;
}

}  // namespace

std::vector<std::int32_t> graph_sizes(std::int32_t rows_max) {
  std::vector<std::int32_t> sizes;
  for (std::int32_t rows = 1; rows < rows_max; rows = rows < kSizeStep ? rows * 2 : rows + kSizeStep) {
    sizes.push_back(rows);
  }
  if (rows_max > 0) {
    sizes.push_back(rows_max);
  }
  return sizes;
}

Result<std::unique_ptr<StepGraphs>> StepGraphs::create(device::Device& device, const StepGraphOptions& options) {
  if (device.graphs() == nullptr || options.most == GraphMode::kNone || options.rows_max < 1) {
    return std::unique_ptr<StepGraphs>();
  }
  std::unique_ptr<StepGraphs> made(new StepGraphs(*device.graphs(), options));  // the constructor is private
  const std::size_t words = static_cast<std::size_t>(options.rows_max) * (kColumns + static_cast<std::size_t>(options.blocks_per_table));
  LOCKSTEP_ASSIGN_OR_RETURN(made->inputs_, device.graphs()->make_inputs(words * sizeof(std::int32_t)));
  for (const std::int32_t rows : graph_sizes(options.rows_max)) {
    made->shapes_.push_back({.rows = rows, .mode = GraphMode::kNone, .stretches = {}, .collective = false, .traffic = {}});
  }
  return made;
}

StepGraphs::Shape* StepGraphs::find(std::int32_t rows) {
  const auto found = std::ranges::lower_bound(shapes_, rows, {}, &Shape::rows);
  return found == shapes_.end() || found->mode == GraphMode::kNone ? nullptr : &*found;
}

Status StepGraphs::capture(Shape& shape, std::span<const ProgramEntry> program, device::Stream& stream, const Compute& compute) {
  shape.mode = GraphMode::kNone;
  shape.stretches.clear();
  fill({}, shape.rows);
  for (std::size_t begin = 0; begin < program.size(); ++begin) {
    std::size_t end = begin;
    while (end < program.size() && is_captured(program[end])) {
      ++end;
    }
    if (end == begin) {
      continue;
    }
    const auto stretch = program.subspan(begin, end - begin);
    const auto body = [&stretch, &compute, &stream]() -> Status {
      for (const ProgramEntry& entry : stretch) {
        LOCKSTEP_RETURN_IF_ERROR(compute(entry, stream));
      }
      return {};
    };
    stream.enqueue([this, &shape, &stream, &body]() -> Status {
      upload(stream, shape.rows);
      return body();
    });
    LOCKSTEP_RETURN_IF_ERROR(stream.synchronize(Deadline::after(kWarmUpLimit, options_.watch)));
    LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<device::Graph> graph, maker_.capture(stream, [&body] { return body(); }));
    shape.stretches.push_back({.begin = begin, .end = end, .graph = std::move(graph)});
    begin = end;
  }
  LOCKSTEP_RETURN_IF_ERROR(stream.synchronize(Deadline::after(kWarmUpLimit, options_.watch)));
  const bool whole = shape.stretches.size() == 1 && shape.stretches.front().end - shape.stretches.front().begin == program.size();
  shape.mode = std::min(whole ? GraphMode::kFull : GraphMode::kPiecewise, options_.most);
  return {};
}

model::BatchMetadata StepGraphs::metadata(std::int32_t rows) const {
  const auto count = static_cast<std::size_t>(rows);
  model::BatchMetadata seen;
  seen.rows = {.positions = column(kPositions).first(count),
               .sequences = column(kSequences).first(count),
               .block_tables = block_tables().first(count * static_cast<std::size_t>(options_.blocks_per_table)),
               .blocks_per_table = options_.blocks_per_table};
  seen.token_ids = column(kTokenIds).first(count);
  return seen;
}

void StepGraphs::fill(const StepBatch& batch, std::int32_t rows) {
  LOCKSTEP_CHECK(batch.rows() <= rows && rows <= options_.rows_max && std::ssize(batch.sample_rows) <= rows, "{} rows, {} of them sampled, for a graph of {}",
                 batch.rows(), batch.sample_rows.size(), rows);
  LOCKSTEP_CHECK(batch.block_tables.empty() || batch.blocks_per_table == options_.blocks_per_table, "{} blocks a table, captured with {}",
                 batch.blocks_per_table, options_.blocks_per_table);
  const auto write = [rows](std::span<const std::int32_t> from, std::span<std::int32_t> to, std::int32_t padding) {
    std::ranges::copy(from, to.begin());
    std::ranges::fill(to.first(static_cast<std::size_t>(rows)).subspan(from.size()), padding);
  };
  write(batch.token_ids, column(kTokenIds), 0);
  write(batch.positions, column(kPositions), -1);  // no row of a sequence: nothing is stored for it
  write(batch.sequences, column(kSequences), 0);
  write(batch.sample_rows, column(kSampleRows), 0);
  LOCKSTEP_CHECK(batch.block_tables.size() <= block_tables().size(), "{} blocks in tables, at most {}", batch.block_tables.size(), block_tables().size());
  std::ranges::copy(batch.block_tables, block_tables().begin());
  tables_filled_ = static_cast<std::int32_t>(batch.block_tables.size());
}

void StepGraphs::upload(device::Stream& stream, std::int32_t rows) {
  // Columns lie one after the other at their full length: from the first to the last that is filled is one copy.
  const std::size_t columns = static_cast<std::size_t>(options_.rows_max) * (kColumns - 1) + static_cast<std::size_t>(rows);
  inputs_->upload(stream, 0, columns * sizeof(std::int32_t));
  if (tables_filled_ > 0) {
    const std::size_t offset = static_cast<std::size_t>(options_.rows_max) * kColumns;
    inputs_->upload(stream, offset * sizeof(std::int32_t), static_cast<std::size_t>(tables_filled_) * sizeof(std::int32_t));
  }
}

std::span<std::int32_t> StepGraphs::column(Column which) const {
  const auto rows = static_cast<std::size_t>(options_.rows_max);
  return {reinterpret_cast<std::int32_t*>(inputs_->host().data()) + which * rows, rows};
}

std::span<std::int32_t> StepGraphs::block_tables() const {
  const auto rows = static_cast<std::size_t>(options_.rows_max);
  return {reinterpret_cast<std::int32_t*>(inputs_->host().data()) + kColumns * rows, rows * static_cast<std::size_t>(options_.blocks_per_table)};
}

}  // namespace lockstep::scheduler
