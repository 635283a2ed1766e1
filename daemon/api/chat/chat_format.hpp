// chat_format: OpenAI's /v1/chat/completions.
#pragma once

#include "daemon/api/api_format.hpp"

namespace lockstep::daemon {

/// Requests as ../chat/chat_request.hpp reads them; objects "chat.completion" and "chat.completion.chunk".
[[nodiscard]] const ApiFormat& chat_format();

}  // namespace lockstep::daemon
