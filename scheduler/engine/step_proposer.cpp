#include "scheduler/engine/step_proposer.hpp"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"
#include "lockstep/scheduler/step_observer.hpp"

namespace lockstep::scheduler {

namespace {

/// As a word of the matrix holds it: the largest one stands for half an hour and more.
std::int32_t whole_microseconds(Duration duration) {
  const auto count = std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
  return static_cast<std::int32_t>(std::clamp<std::int64_t>(count, 0, std::numeric_limits<std::int32_t>::max()));
}

}  // namespace

StepProposer::StepProposer(const EngineOptions& options, const EngineParts& parts, std::uint64_t config_hash)
    : options_(options), parts_(parts), config_hash_(config_hash), agreement_(*parts.communicator, parts.view) {}

Deadline StepProposer::deadline() const {
  return Deadline::after(options_.stall_timeout, parts_.watch, *parts_.clock);
}

Error StepProposer::in_agreement(Error error) const {
  // A divergence begins with the field's name, which on_divergence reports.
  error.message = error.code == ErrorCode::kDiverged ? fmt::format("{} (step {}, agreement)", error.message, step_)
                                                     : fmt::format("step {}, agreement: {}", step_, error.message);
  return error;
}

Status StepProposer::handshake() {
  return agreement_.handshake(config_hash_, comm::kProtocolVersion, deadline());
}

Status StepProposer::propose(comm::StepProposal proposal) {
  LOCKSTEP_CHECK(!proposed_, "step {} is proposed while step {} is", proposal.step, step_);
  const TimePoint begin = parts_.clock->now();
  step_ = proposal.step;
  tokens_ = proposal.tokens;
  proposal.epoch = parts_.view.epoch;
  proposal.config_hash = config_hash_;
  proposal.waited_us = waited_us_;
  out_of_sleep_ = false;
  if (parts_.observer != nullptr) {
    parts_.observer->on_collective({.kind = CollectiveKind::kAgreement, .step = step_});
  }
  if (Status status = agreement_.start(proposal); !status) {
    return in_agreement(std::move(status).error());
  }
  proposed_ = true;
  time_spent_ = parts_.clock->now() - begin;
  return {};
}

Status StepProposer::await_plan(comm::StepPlan& plan) {
  LOCKSTEP_CHECK(proposed_, "a plan is awaited after step {}, but nothing is proposed", step_);
  waited_from_ = parts_.clock->now();
  parts_.progress->advance(step_, -1, comm::StepPhase::kAgreeing);
  Status status = agreement_.finish(plan, deadline());
  if (status) {
    status = check(plan);
  }
  if (!status) {
    return in_agreement(std::move(status).error());
  }
  LOCKSTEP_CHECK(plan.step == step_, "agreed on step {} in step {}", plan.step, step_);
  proposed_ = false;
  agreed_ = parts_.clock->now();
  time_spent_ += waited();
  waited_us_ = out_of_sleep_ ? 0 : whole_microseconds(waited());
  return {};
}

Status StepProposer::check(const comm::StepPlan& plan) const {
  const std::vector<std::int32_t>& tokens = plan.tokens_per_member;
  const auto over = std::ranges::find_if(tokens, [this](std::int32_t count) { return count > options_.max_num_batched_tokens; });
  if (over != tokens.end()) {
    const auto member = static_cast<int>(over - tokens.begin());
    return Error{ErrorCode::kDiverged,
                 fmt::format("tokens of member {} is {}, expected at most {} (--max-num-batched-tokens): a bug there; see its log, then restart the group",
                             member, *over, options_.max_num_batched_tokens),
                 member};
  }
  if (plan.micro_batches > options_.micro_batches) {
    return Error{
        ErrorCode::kDiverged,
        fmt::format("micro_batches of the members with rows is {}, expected at most {} (--micro-batches): a bug there; see their logs, then restart the "
                    "group",
                    plan.micro_batches, options_.micro_batches)};
  }
  const std::int32_t mine = tokens[static_cast<std::size_t>(parts_.view.my_index)];
  LOCKSTEP_CHECK(mine == tokens_, "step {}: agreed on {} rows of this rank, which has {}", step_, mine, tokens_);
  return {};
}

}  // namespace lockstep::scheduler
