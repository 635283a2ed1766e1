#include "tests/support/teacher_forcing.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "tests/support/test_device.hpp"

namespace lockstep::tests {

TeacherForcing::TeacherForcing(const model::ModelConfig& config, const TeacherForcingOptions& options)
    : config_(config),
      options_(options),
      communicator_(options.communicator != nullptr ? nullptr
                    : options.group != nullptr      ? options.group->communicator(options.rank)
                                                    : comm::LocalGroup(1, options.hooks).communicator(0)),
      view_(comm::GroupView::initial(options.world_size, options.rank)),
      placement_(comm::Placement::contiguous(config.expert_count, view_)) {}

Result<std::unique_ptr<TeacherForcing>> TeacherForcing::create(const model::ModelConfig& config, model::WeightSource& source,
                                                               const TeacherForcingOptions& options) {
  std::unique_ptr<TeacherForcing> made(new TeacherForcing(config, options));  // the constructor is private
  LOCKSTEP_RETURN_IF_ERROR(made->prepare(source));
  return made;
}

Status TeacherForcing::prepare(model::WeightSource& source) {
  device_ = make_test_device(options_.device.empty() ? test_device_name() : std::string(options_.device), options_.communicator != nullptr ? options_.rank : 0,
                             options_.batch_invariant);
  const std::span<const std::int32_t> experts = placement_.experts_of(options_.rank);
  LOCKSTEP_ASSIGN_OR_RETURN(transformer_,
                            model::Transformer::load(config_, source, *device_,
                                                     {.rows_max = options_.rows_per_step,
                                                      .group_rows_max = options_.rows_per_step * options_.world_size,
                                                      .micro_batches_max = options_.micro_batches,
                                                      .logit_rows_max = options_.rows_per_step,
                                                      .positions_max = options_.tokens_max,
                                                      .local_experts = {experts.begin(), experts.end()},
                                                      .rows_stay_on_device = comm::exchanges_on_device(communicator(), device_.get(), options_.combine),
                                                      .rows_within_device_max = options_.within_device ? options_.rows_per_step : 0,
                                                      .view = &view_,
                                                      .placement = &placement_},
                                                     nullptr));
  const std::int32_t blocks = scheduler::KvCache::blocks_for(options_.tokens_max);
  LOCKSTEP_ASSIGN_OR_RETURN(cache_, scheduler::KvCache::create(*device_, transformer_->kv_cache_specs(), std::int64_t{1} << 30, blocks));
  if (!cache_->reserve(blocks, blocks_)) {
    return Error{ErrorCode::kResourceExhausted, fmt::format("{} tokens do not fit the cache", options_.tokens_max)};
  }
  // Not in order: a look-up that ignored the table would be seen.
  std::ranges::reverse(blocks_);
  LOCKSTEP_ASSIGN_OR_RETURN(
      executor_, scheduler::StepExecutor::create({.config = &config_,
                                                  .device = device_.get(),
                                                  .communicator = &communicator(),
                                                  .view = &view_,
                                                  .placement = &placement_,
                                                  .transformer = transformer_.get(),
                                                  .cache = &*cache_,
                                                  .progress = &progress_,
                                                  .observer = options_.observer},
                                                 {.rows_max = options_.rows_per_step,
                                                  .micro_batches_max = options_.micro_batches,
                                                  .combine = options_.combine,
                                                  .graphs = {.most = options_.graphs, .rows_max = options_.rows_per_step, .blocks_per_table = blocks},
                                                  .stall_timeout = std::chrono::seconds(60)}));
  LOCKSTEP_RETURN_IF_ERROR(transformer_->warm_up());
  executor_->capture_graphs();
  return executor_->agree_graphs();
}

void TeacherForcing::make_batch(std::span<const std::int32_t> tokens, std::size_t begin, std::size_t end) {
  const auto rows = static_cast<std::int32_t>(end - begin);
  plan_.tokens_per_member.clear();
  for (int rank = 0; rank < options_.world_size; ++rank) {
    plan_.tokens_per_member.push_back(is_idle(rank) ? 0 : rows);
  }
  if (is_idle(options_.rank)) {
    end = begin;
  }
  batch_.token_ids.assign(tokens.begin() + static_cast<std::ptrdiff_t>(begin), tokens.begin() + static_cast<std::ptrdiff_t>(end));
  batch_.positions.resize(end - begin);
  std::iota(batch_.positions.begin(), batch_.positions.end(), static_cast<std::int32_t>(begin));
  batch_.sequences.assign(end - begin, 0);
  batch_.block_tables.assign(blocks_.begin(), begin == end ? blocks_.begin() : blocks_.end());
  batch_.blocks_per_table = static_cast<std::int32_t>(blocks_.size());
  batch_.sample_rows.resize(end - begin);
  std::iota(batch_.sample_rows.begin(), batch_.sample_rows.end(), 0);
  batch_.prefill_tokens = batch_.rows();
  plan_.action = comm::StepAction::kRun;
  plan_.padded_tokens = rows;
  plan_.micro_batches = options_.micro_batches;
  plan_.graph_mode = options_.graphs;
  plan_.micro_batch_tokens = (rows + options_.micro_batches - 1) / options_.micro_batches;
}

Result<std::vector<std::vector<float>>> TeacherForcing::logits(std::span<const std::int32_t> tokens) {
  if (tokens.size() > static_cast<std::size_t>(options_.tokens_max)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} tokens, at most {}", tokens.size(), options_.tokens_max)};
  }
  std::vector<std::vector<float>> result;
  const auto step_rows = static_cast<std::size_t>(options_.rows_per_step);
  for (std::size_t begin = 0; begin < tokens.size(); begin += step_rows) {
    const std::size_t end = std::min(begin + step_rows, tokens.size());
    make_batch(tokens, begin, end);
    LOCKSTEP_RETURN_IF_ERROR(executor_->run(plan_, batch_, costs_));
    ++plan_.step;
    for (std::size_t row = 0; row < static_cast<std::size_t>(batch_.rows()); ++row) {
      const std::span<const float> values = transformer_->logits(static_cast<std::int32_t>(row));
      result.emplace_back(values.begin(), values.end());
    }
  }
  return result;
}

std::string TeacherForcing::instruction_set() const {
  const Result<std::unique_ptr<device::Ops>> ops = device_->make_ops();
  return ops ? (*ops)->instruction_set() : ops.error().message;
}

std::vector<double> log_softmax(std::span<const float> logits) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit) - largest);
  }
  std::vector<double> result;
  result.reserve(logits.size());
  for (const float logit : logits) {
    result.push_back(static_cast<double>(logit) - largest - std::log(sum));
  }
  return result;
}

}  // namespace lockstep::tests
