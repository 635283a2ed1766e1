// render_conversation: the messages of a chat request as the text that the model goes on with.
#pragma once

#include <string>

#include <boost/json/object.hpp>

#include "daemon/api/api_format.hpp"
#include "daemon/api/request/json_fields.hpp"

namespace lockstep::daemon {

/// Reads messages, add_generation_prompt, continue_final_message, chat_template_kwargs and reasoning_effort, and renders the template.
/// Content in parts becomes one text, with a line break between two parts; parts other than text are refused. So are, where the context says so, messages with
/// the text of a special token in them: the tokenizer would take it for that token. Refused by name is also what would stand in the prompt beside the messages:
/// tools (unless tool_choice is none), functions, documents, a template. Members of a message that are null, and empty calls, do not reach the template.
/// `context` has a chat template.
[[nodiscard]] Failure render_conversation(const boost::json::object& request, const ApiContext& context, std::string& text);

}  // namespace lockstep::daemon
