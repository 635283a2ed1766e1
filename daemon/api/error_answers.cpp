#include "daemon/api/error_answers.hpp"

namespace lockstep::daemon {
namespace {

using scheduler::FinishReason;

constexpr int kRetryAfterSeconds = 1;

}  // namespace

ApiError finish_error(FinishReason reason, const std::optional<Error>& error) {
  switch (reason) {
    case FinishReason::kRankLost:
      return {.status = 503,
              .message = "a rank of the serving group was lost while this request ran; it can be sent again",
              .code = "rank_lost",
              .retry_after_seconds = kRetryAfterSeconds};
    case FinishReason::kCancelled:
      return {.status = 503,
              .message = "the server stopped before this request was done; it can be sent again",
              .code = "cancelled",
              .retry_after_seconds = kRetryAfterSeconds};
    case FinishReason::kError:
    case FinishReason::kStop:
    case FinishReason::kLength:
      break;
  }
  return error ? api_error_of(*error) : ApiError{.status = 500, .message = "this request failed inside the server", .code = "internal"};
}

ApiError api_error_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      return {.status = 400, .message = error.message, .code = "invalid_request"};
    case ErrorCode::kResourceExhausted:
      return {.status = 429, .message = error.message, .code = "overloaded", .retry_after_seconds = kRetryAfterSeconds};
    case ErrorCode::kCancelled:
      return {.status = 503, .message = error.message, .code = "draining", .retry_after_seconds = kRetryAfterSeconds};
    case ErrorCode::kTimeout:
    case ErrorCode::kPeerLost:
    case ErrorCode::kDiverged:
      return finish_error(FinishReason::kRankLost, std::nullopt);
    case ErrorCode::kInternal:
      break;
  }
  return {.status = 500, .message = "this request failed inside the server", .code = "internal"};  // the log has the rest
}

}  // namespace lockstep::daemon
