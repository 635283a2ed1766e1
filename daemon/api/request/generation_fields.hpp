// read_generation_fields: the fields that all formats share.
#pragma once

#include <boost/json/object.hpp>

#include "daemon/api/api_format.hpp"
#include "daemon/api/request/generation_job.hpp"
#include "daemon/api/request/json_fields.hpp"

namespace lockstep::daemon {

/// Reads everything but the prompt and the form of log probabilities; refuses what this server knows and cannot honour. Fields that nobody documents are
/// ignored, as OpenAI's clients send new ones at any time.
[[nodiscard]] Failure read_generation_fields(const boost::json::object& object, const ApiContext& context, GenerationJob& job);

/// "model" alone: absent, null, or one of the served names.
[[nodiscard]] Failure read_model_name(const boost::json::object& object, const ApiContext& context);

}  // namespace lockstep::daemon
