// read_generation_fields: the fields that all formats share.
#pragma once

#include <string_view>

#include <boost/json/object.hpp>

#include "daemon/api/request/generation_job.hpp"
#include "daemon/api/request/json_fields.hpp"

namespace lockstep::daemon {

/// Reads everything but the prompt and the form of log probabilities; refuses what this server knows and cannot honour. Fields that nobody documents are
/// ignored, as OpenAI's clients send new ones at any time.
[[nodiscard]] Failure read_generation_fields(const boost::json::object& object, std::string_view served_name, GenerationJob& job);

}  // namespace lockstep::daemon
