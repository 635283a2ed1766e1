#include <boost/asio/error.hpp>
#include <boost/system/system_error.hpp>
#include <fmt/format.h>

#include "lockstep/microbatcher/core.hpp"
#include "lockstep/microbatcher/types.hpp"

namespace lockstep {

namespace {

constexpr Duration kTimeoutMax = std::chrono::hours(24);  // far from where adding it to a time point overflows

void check_at_least_one(const std::string& name, const char* option, std::size_t value) {
  if (value == 0) {
    throw std::invalid_argument(fmt::format("{}: {} is 0; it must be 1 or more", name, option));
  }
}

}  // namespace

void check_microbatcher_options(const MicrobatcherOptions& options) {
  check_at_least_one(options.name, "max_batch_size", options.max_batch_size);
  check_at_least_one(options.name, "max_pending", options.max_pending);
  if (options.batch_wait_timeout < Duration::zero() || options.batch_wait_timeout > kTimeoutMax) {
    throw std::invalid_argument(fmt::format("{}: batch_wait_timeout is {} ns; it must be from 0 to {} ns (24 h)", options.name,
                                            options.batch_wait_timeout.count(), kTimeoutMax.count()));
  }
}

namespace detail {

boost::asio::any_io_executor checked_executor(boost::asio::any_io_executor executor, const MicrobatcherOptions& options) {
  if (!executor) {
    throw std::invalid_argument(fmt::format("{}: the executor is empty; it must be one that runs, such as io_context's get_executor()", options.name));
  }
  return executor;
}

std::exception_ptr full_error(const MicrobatcherOptions& options) {
  return std::make_exception_ptr(
      MicrobatcherError(ErrorCode::kResourceExhausted,
                        fmt::format("{}: {} items wait already, as many as max_pending allows; try again later", options.name, options.max_pending)));
}

std::exception_ptr stopped_error(const MicrobatcherOptions& options) {
  return std::make_exception_ptr(
      MicrobatcherError(ErrorCode::kCancelled, fmt::format("{}: it is not running, so it takes no items; submit between start and stop", options.name)));
}

std::exception_ptr destroyed_error(const MicrobatcherOptions& options) {
  return std::make_exception_ptr(MicrobatcherError(
      ErrorCode::kCancelled, fmt::format("{}: it was destroyed before this item was done; stop() before that finishes all items", options.name)));
}

std::exception_ptr result_count_error(const MicrobatcherOptions& options, std::size_t results, std::size_t items) {
  return std::make_exception_ptr(MicrobatcherError(
      ErrorCode::kInternal,
      fmt::format("{}: the batch function returned {} results for {} items; it must return one for each, in order", options.name, results, items)));
}

std::exception_ptr no_outcome_error(const MicrobatcherOptions& options) {
  return std::make_exception_ptr(MicrobatcherError(
      ErrorCode::kInternal, fmt::format("{}: the batch function gave an item neither a value nor an exception: return one of them for each", options.name)));
}

std::exception_ptr cancelled_error() {
  return std::make_exception_ptr(boost::system::system_error(boost::asio::error::operation_aborted));
}

}  // namespace detail
}  // namespace lockstep
