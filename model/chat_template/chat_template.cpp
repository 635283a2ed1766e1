#include "lockstep/model/chat_template.hpp"

#include <array>
#include <ctime>
#include <new>
#include <system_error>
#include <utility>

#include <boost/json/value.hpp>
#include <fmt/format.h>

#include "model/chat_template/program_template.hpp"
#include "model/json/json_node.hpp"

namespace lockstep::model {
namespace {

constexpr std::size_t kTemplateBytesMax = 1U << 20U;
constexpr std::size_t kConfigBytesMax = 32U << 20U;  // some models list thousands of added tokens here
/// What the reference passes of tokenizer_config.json.
constexpr std::array<std::string_view, 7> kSpecialTokens{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

/// A token is a text, or an object with its text as "content".
Status add_special_tokens(const JsonNode& root, std::vector<std::pair<std::string, TemplateValue>>& variables) {
  for (const std::string_view name : kSpecialTokens) {
    const std::optional<JsonNode> node = root.find(name);
    if (!node) {
      continue;
    }
    const std::optional<JsonNode> content = node->value().is_object() ? node->find("content") : node;
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view text, (content ? *content : *node).string());
    variables.emplace_back(name, TemplateValue::string(std::string(text)));
  }
  return {};
}

/// "chat_template": a text, or a list of named ones of which "default" counts.
Result<std::optional<std::string>> template_of(const JsonNode& root) {
  const std::optional<JsonNode> node = root.find("chat_template");
  if (!node) {
    return std::optional<std::string>();
  }
  if (!node->value().is_array()) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view text, node->string());
    return std::optional<std::string>(text);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<JsonNode> entries, node->elements());
  for (const JsonNode& entry : entries) {
    LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode name_node, entry.at("name"));
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view name, name_node.string());
    if (name == "default") {
      LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode text_node, entry.at("template"));
      LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view text, text_node.string());
      return std::optional<std::string>(text);
    }
  }
  return node->wrong("a list with one named \"default\"");
}

}  // namespace

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::parse(std::string source, std::string name) {
  LOCKSTEP_ASSIGN_OR_RETURN(auto result, chat::ProgramTemplate::create(source, std::move(name), {}));
  return std::unique_ptr<ChatTemplate>(std::move(result));
}

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::open(const std::filesystem::path& model_folder, const std::filesystem::path& template_file) {
  const std::filesystem::path config_path = model_folder / "tokenizer_config.json";
  const std::filesystem::path template_path = template_file.empty() ? model_folder / "chat_template.jinja" : template_file;
  const bool has_file = !template_file.empty() || is_there(template_path);
  std::vector<std::pair<std::string, TemplateValue>> variables;
  std::optional<std::string> source;
  std::string name = template_path.string();
  if (is_there(config_path)) {
    LOCKSTEP_ASSIGN_OR_RETURN(const JsonDocument document, read_json_file(config_path, kConfigBytesMax));
    const JsonNode root(document);
    LOCKSTEP_RETURN_IF_ERROR(add_special_tokens(root, variables));
    if (!has_file) {
      LOCKSTEP_ASSIGN_OR_RETURN(source, template_of(root));
      name = config_path.string() + " chat_template";
    }
  }
  if (has_file) {
    LOCKSTEP_ASSIGN_OR_RETURN(source, read_file(template_path, kTemplateBytesMax));
  }
  if (!source) {
    return std::unique_ptr<ChatTemplate>();
  }
  LOCKSTEP_ASSIGN_OR_RETURN(auto result, chat::ProgramTemplate::create(*source, std::move(name), std::move(variables)));
  return std::unique_ptr<ChatTemplate>(std::move(result));
}

}  // namespace lockstep::model
