// What a client is told when its request was refused or has failed.
#pragma once

#include <optional>

#include "daemon/http/error_body.hpp"
#include "lockstep/core/result.hpp"
#include "lockstep/scheduler/request.hpp"

namespace lockstep::daemon {

/// The answer to a request that the engine or the model's parts refused. Messages of failures inside the server stay inside.
[[nodiscard]] ApiError api_error_of(const Error& error);
/// The answer to a request that the engine ended for another reason than kStop and kLength.
[[nodiscard]] ApiError finish_error(scheduler::FinishReason reason, const std::optional<Error>& error);

}  // namespace lockstep::daemon
