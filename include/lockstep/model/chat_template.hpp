// ChatTemplate: a conversation to the prompt text that its model was trained on.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "lockstep/core/result.hpp"
#include "lockstep/model/template_value.hpp"

namespace lockstep::model {

/// What a template is rendered with. Each value is what the request's JSON held.
struct ChatInput {
  TemplateValue messages;             ///< list of objects: "role", "content", and what else the client sent
  TemplateValue tools;                ///< list of objects; null where there are none, as the reference library passes it
  bool add_generation_prompt = true;  ///< end with the head of the answer
  TemplateValue extra;                ///< object or null: more variables by name (chat_template_kwargs). They win over those above and the special tokens.
};

/// A compiled chat template: the documented subset of Jinja (docs/chat-templates.md), rendered as the reference library renders it.
/// Ownership  Owns its program; keeps nothing of an input.      Threads  const calls from any.
class ChatTemplate {
 public:
  /// Compiles template text. `name` stands in messages: "NAME:LINE:COLUMN: ...".      Cost  linear in the source, of at most 1 MiB.
  /// Errors  kInvalidArgument: wrong syntax, nested too deep, not UTF-8; kUnsupported: a construct outside the subset, with what is supported.
  [[nodiscard]] static Result<std::unique_ptr<ChatTemplate>> parse(std::string source, std::string name);

  /// Compiles `template_file`, or where that is empty the template of a model folder: chat_template.jinja, else "chat_template" of tokenizer_config.json (a
  /// text, or a list of {name, template}, of which "default" is taken); null where the model has none. Special tokens (bos_token, eos_token, ...) come from
  /// tokenizer_config.json. Errors  those of `parse`; kInvalidArgument: a file that cannot be read, or a value of the wrong kind.
  [[nodiscard]] static Result<std::unique_ptr<ChatTemplate>> open(const std::filesystem::path& model_folder, const std::filesystem::path& template_file = {});

  virtual ~ChatTemplate() = default;
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  /// The prompt's text. Bounded in output, steps, recursion and size of every value, whatever the input.
  /// Errors  kInvalidArgument: the template raised an exception about the conversation, the conversation has not the form that the template expects, or it
  /// goes beyond a bound. The message is fit for the client.
  /// Cost    microseconds a message; no lock, no I/O.
  [[nodiscard]] virtual Result<std::string> render(const ChatInput& input) const = 0;

 protected:
  ChatTemplate() = default;
};

}  // namespace lockstep::model
