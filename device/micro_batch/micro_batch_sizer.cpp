#include "lockstep/micro_batch/micro_batch_sizer.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <fmt/format.h>

namespace lockstep {

namespace {
/// The seed's band around the target.
constexpr double kSlow = 1.5;
constexpr double kFast = 0.5;
/// One sample this slow is acted on at once.
constexpr double kVerySlow = 3;
/// A smaller size that still takes this share of the larger one's time is no help. Half the rows take half the time at best; 20 % of noise makes that 0.75.
constexpr double kNoHelp = 0.8;
/// A block ends when what it was measured against has fallen below this share.
constexpr double kMuchCheaper = 0.5;
/// More would be a leap in the dark: beyond a cache's size the cost per row may be several times higher.
constexpr double kRiseMax = 2;

void check(bool good, const char* name, double value, const char* expected) {
  if (!good) {
    throw std::invalid_argument(fmt::format("{} is {}, expected {}", name, value, expected));
  }
}
}  // namespace

MicroBatchSizer::MicroBatchSizer(const MicroBatchSizerOptions& options) : target_ms_(options.target_time_ms), memory_threshold_(options.memory_threshold) {
  check(options.initial_micro_batch >= 1, "initial_micro_batch", options.initial_micro_batch, "at least 1");
  check(options.min_micro_batch >= 1, "min_micro_batch", options.min_micro_batch, "at least 1");
  if (options.min_micro_batch > options.max_micro_batch) {
    throw std::invalid_argument(
        fmt::format("min_micro_batch is {}, expected at most max_micro_batch, which is {}", options.min_micro_batch, options.max_micro_batch));
  }
  check(target_ms_ > 0 && std::isfinite(target_ms_), "target_time_ms", target_ms_, "a finite number above 0");
  check(memory_threshold_ > 0 && memory_threshold_ <= 1, "memory_threshold", memory_threshold_, "more than 0 and at most 1");
  const std::int32_t initial = std::clamp(options.initial_micro_batch, options.min_micro_batch, options.max_micro_batch);
  ladder_.push_back(options.min_micro_batch);
  for (std::int32_t size = initial / 2; size > options.min_micro_batch; size /= 2) {
    ladder_.push_back(size);
  }
  for (std::int64_t size = initial; size < options.max_micro_batch; size *= 2) {
    ladder_.push_back(static_cast<std::int32_t>(size));
  }
  ladder_.push_back(options.max_micro_batch);
  std::sort(ladder_.begin(), ladder_.end());
  ladder_.erase(std::unique(ladder_.begin(), ladder_.end()), ladder_.end());
  level_ = static_cast<std::size_t>(std::find(ladder_.begin(), ladder_.end(), initial) - ladder_.begin());
}

void MicroBatchSizer::observe(std::int32_t rows, double duration_ms, double memory_pressure) {
  if (memory_pressure >= memory_threshold_) {
    if (!full_ || level_ <= full_->level) {
      full_ = Block{.level = level_, .reference = std::nullopt};
    }
    if (level_ > 0) {
      fell_from_.reset();  // not a fall for time: its outcome says nothing about what time a smaller size takes
      rose_from_.reset();
      move_to(level_ - 1);
    }
    return;
  }
  if (rows != size() || !std::isfinite(duration_ms)) {
    return;
  }
  if (std::isfinite(memory_pressure)) {
    refresh(full_, memory_pressure);
  }
  window_[samples_++ % kWindow] = duration_ms;
  adapt_to_time();
}

void MicroBatchSizer::adapt_to_time() {
  const double time_ms = median_ms();
  refresh(slow_, time_ms);
  std::size_t highest = ladder_.size() - 1;
  if (slow_ && slow_->seen >= retry_after_) {
    highest = slow_->level;  // a look at this step, not beyond it
    slow_.reset();
    retry_after_ *= 2;
  }
  if (fell_from_ && time_ms > kNoHelp * fell_from_ms_) {
    floor_ = *fell_from_;
    slow_.reset();
    move_to(*fell_from_);
    fell_from_.reset();
    return;
  }
  if (time_ms > kSlow * target_ms_) {
    if (samples_ >= 2 || time_ms > kVerySlow * target_ms_) {
      fall(time_ms);
    }
  } else {
    // Time fits here, so a smaller size may have its use again.
    floor_.reset();
    fell_from_.reset();
    rose_from_.reset();
    if (time_ms < kFast * target_ms_) {
      rise(time_ms, highest);
    }
  }
}

void MicroBatchSizer::fall(double time_ms) {
  const std::size_t lowest = floor_.value_or(0);
  if (level_ <= lowest) {
    return;
  }
  slow_ = Block{.level = level_, .reference = std::nullopt};
  fell_from_ = level_;
  fell_from_ms_ = time_ms;
  const auto steps = static_cast<std::size_t>(std::max(1.0, std::round(std::log2(time_ms / target_ms_))));
  std::size_t to = level_ - std::min(steps, level_ - lowest);
  if (rose_from_) {
    to = std::max(to, *rose_from_);  // beyond a cache's size the time jumps: it does not tell how far to fall
    rose_from_.reset();
  }
  move_to(to);
}

void MicroBatchSizer::rise(double time_ms, std::size_t highest) {
  for (const std::optional<Block>& block : {slow_, full_}) {
    if (block) {
      highest = std::min(highest, std::max<std::size_t>(block->level, 1) - 1);
    }
  }
  if (level_ >= highest) {
    return;
  }
  const double wanted = time_ms > 0 ? std::floor(std::log2(target_ms_ / time_ms)) : kRiseMax;
  const auto steps = static_cast<std::size_t>(std::clamp(wanted, 1.0, kRiseMax));
  rose_from_ = level_;
  move_to(std::min(level_ + steps, highest));
}

void MicroBatchSizer::move_to(std::size_t level) {
  level_ = level;
  samples_ = 0;
}

double MicroBatchSizer::median_ms() const {
  std::array<double, kWindow> sorted = window_;
  const std::size_t count = std::min(samples_, kWindow);
  std::sort(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(count));
  return sorted[(count - 1) / 2];  // of two the lower, so that both have to be slow
}

void MicroBatchSizer::refresh(std::optional<Block>& block, double now) const {
  if (!block || level_ + 1 != block->level) {
    return;
  }
  if (!block->reference) {
    block->reference = now;
  } else if (++block->seen; now < kMuchCheaper * *block->reference) {
    block.reset();
  }
}

}  // namespace lockstep
