// completion_format: OpenAI's /v1/completions.
#pragma once

#include "daemon/api/api_format.hpp"

namespace lockstep::daemon {

/// Requests as ../completions/completion_request.hpp reads them; objects "text_completion".
[[nodiscard]] const ApiFormat& completion_format();

}  // namespace lockstep::daemon
