#include "model/tokenizer/tokenizer_file.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include <fmt/format.h>

#include "model/json/json_node.hpp"
#include "model/tokenizer/text/byte_level.hpp"
#include "model/tokenizer/text/normalizer.hpp"

namespace lockstep::model {

namespace {

constexpr std::size_t kFileBytesMax = 256U << 20U;
constexpr std::int64_t kIdMax = (1 << 22) - 1;  // as model_config.cpp limits the vocabulary
constexpr std::size_t kAddedTokensMax = 65536;
constexpr std::size_t kAddedTokenBytesMax = 1024;
constexpr std::size_t kStagesMax = 16;

/// What ByteLevel splits by when `use_regex` is set and no Split comes before it.      Source  GPT-2's tokenizer.
constexpr std::string_view kByteLevelPattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string_view view_of(const boost::json::string& text) {
  return {text.data(), text.size()};
}

/// A section that is either one stage or a Sequence of stages under `list_key`; empty where the section is null or absent.
Result<std::vector<JsonNode>> stages_of(const JsonNode& root, std::string_view section, std::string_view list_key) {
  const std::optional<JsonNode> node = root.find(section);
  if (!node) {
    return std::vector<JsonNode>{};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode type, node->at("type"));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view name, type.string());
  if (name != "Sequence") {
    return std::vector<JsonNode>{*node};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode list, node->at(list_key));
  LOCKSTEP_ASSIGN_OR_RETURN(std::vector<JsonNode> stages, list.elements());
  if (stages.size() > kStagesMax) {
    return list.wrong(fmt::format("at most {} stages", kStagesMax));
  }
  return stages;
}

Result<std::string_view> type_of(const JsonNode& stage) {
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode type, stage.at("type"));
  return type.string();
}

/// The boolean `key` of `stage` must be `expected`: other values mean something that is not handled. An absent key means `fallback`.
Status require_boolean(const JsonNode& stage, std::string_view key, bool expected, std::optional<bool> fallback) {
  const std::optional<JsonNode> node = stage.find(key);
  if (!node && fallback == expected) {
    return {};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode present, stage.at(key));
  LOCKSTEP_ASSIGN_OR_RETURN(const bool value, present.boolean());
  return value == expected ? Status() : present.wrong(expected ? "true" : "false", ErrorCode::kUnsupported);
}

Status require_string(const JsonNode& stage, std::string_view key, std::string_view expected) {
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode node, stage.at(key));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view value, node.string());
  return value == expected ? Status() : node.wrong(fmt::format("\"{}\"", expected), ErrorCode::kUnsupported);
}

Status unsupported_type(const JsonNode& stage, std::string_view expected) {
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode type, stage.at("type"));
  return type.wrong(expected, ErrorCode::kUnsupported);
}

Status read_normalizer(const JsonNode& root, TokenizerParts& parts) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<JsonNode> stages, stages_of(root, "normalizer", "normalizers"));
  for (const JsonNode& stage : stages) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view type, type_of(stage));
    if (type != "NFC") {
      return unsupported_type(stage, "\"NFC\"");
    }
    parts.normalize_nfc = true;
  }
  return {};
}

Status add_splitter(const JsonNode& place, std::string_view pattern, TokenizerParts& parts) {
  Result<Splitter> splitter = Splitter::create(pattern);
  if (!splitter) {
    return place.wrong(fmt::format("a pattern that this build can run: {}", splitter.error().message), splitter.error().code);
  }
  parts.splitters.push_back(std::move(*splitter));
  return {};
}

Status read_split(const JsonNode& stage, TokenizerParts& parts) {
  LOCKSTEP_RETURN_IF_ERROR(require_string(stage, "behavior", "Isolated"));
  LOCKSTEP_RETURN_IF_ERROR(require_boolean(stage, "invert", false, std::nullopt));
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode pattern, stage.at("pattern"));
  const std::optional<JsonNode> regex = pattern.find("Regex");
  if (!regex) {
    return pattern.wrong("{\"Regex\": ...}", ErrorCode::kUnsupported);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view text, regex->string());
  return add_splitter(*regex, text, parts);
}

/// Any number of Splits, then ByteLevel.
Status read_pre_tokenizer(const JsonNode& root, TokenizerParts& parts) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<JsonNode> stages, stages_of(root, "pre_tokenizer", "pretokenizers"));
  for (std::size_t i = 0; i < stages.size(); ++i) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view type, type_of(stages[i]));
    const bool last = i + 1 == stages.size();
    if (type == "Split" && !last) {
      LOCKSTEP_RETURN_IF_ERROR(read_split(stages[i], parts));
    } else if (type == "ByteLevel" && last) {
      LOCKSTEP_RETURN_IF_ERROR(require_boolean(stages[i], "add_prefix_space", false, std::nullopt));
      const std::optional<JsonNode> use_regex = stages[i].find("use_regex");
      LOCKSTEP_ASSIGN_OR_RETURN(const bool splits, use_regex ? use_regex->boolean() : Result<bool>(true));
      if (splits) {
        LOCKSTEP_RETURN_IF_ERROR(add_splitter(stages[i], kByteLevelPattern, parts));
      }
      return {};
    } else {
      return unsupported_type(stages[i], "any number of \"Split\" and then \"ByteLevel\"");
    }
  }
  return JsonNode(root).wrong("an object whose pre_tokenizer ends with ByteLevel", ErrorCode::kUnsupported);
}

Status check_decoder(const JsonNode& root) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<JsonNode> stages, stages_of(root, "decoder", "decoders"));
  if (stages.size() != 1) {
    return root.wrong("an object whose decoder is ByteLevel", ErrorCode::kUnsupported);
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view type, type_of(stages.front()));
  return type == "ByteLevel" ? Status() : unsupported_type(stages.front(), "\"ByteLevel\"");
}

/// A post-processor may only leave the ids as they are: one that adds tokens of its own would change every prompt.
Status check_post_processor(const JsonNode& root) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<JsonNode> stages, stages_of(root, "post_processor", "processors"));
  for (const JsonNode& stage : stages) {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view type, type_of(stage));
    if (type == "ByteLevel") {
      continue;
    }
    if (type != "TemplateProcessing") {
      return unsupported_type(stage, "\"ByteLevel\" or \"TemplateProcessing\"");
    }
    LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode single, stage.at("single"));
    LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<JsonNode> elements, single.elements());
    if (elements.size() != 1 || !elements.front().find("Sequence")) {
      return single.wrong("one Sequence and no special tokens", ErrorCode::kUnsupported);
    }
  }
  return {};
}

/// Options of BPE that change ids: all must be off.
Status check_model_options(const JsonNode& model) {
  LOCKSTEP_RETURN_IF_ERROR(require_string(model, "type", "BPE"));
  for (const std::string_view key : {"fuse_unk", "byte_fallback"}) {
    LOCKSTEP_RETURN_IF_ERROR(require_boolean(model, key, false, false));
  }
  if (const auto node = model.find("dropout"); node && !(node->value().is_number() && node->value().to_number<double>() == 0.0)) {
    return node->wrong("null or 0", ErrorCode::kUnsupported);
  }
  if (const auto node = model.find("unk_token")) {
    return node->wrong("null: all bytes are tokens", ErrorCode::kUnsupported);
  }
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const auto node = model.find(key); node && node->value() != "") {
      return node->wrong("null or \"\"", ErrorCode::kUnsupported);
    }
  }
  return {};
}

/// Sets the entry of `id`, growing the table up to it.
TokenEntry& entry_at(TokenizerParts& parts, std::int64_t id) {
  const auto index = static_cast<std::size_t>(id);
  if (parts.tokens.size() <= index) {
    parts.tokens.resize(index + 1);
  }
  return parts.tokens[index];
}

/// The model's vocabulary: token texts to ids.
class Vocabulary {
 public:
  static Result<Vocabulary> create(const JsonNode& model, std::string_view file) {
    LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode node, model.at("vocab"));
    const boost::json::object* object = node.value().if_object();
    if (object == nullptr || object->size() > static_cast<std::size_t>(kIdMax) + 1) {
      return node.wrong(fmt::format("an object of at most {} tokens", kIdMax + 1));
    }
    return Vocabulary(*object, file);
  }

  [[nodiscard]] std::optional<std::int32_t> id_of(std::string_view text) const {
    const boost::json::value* value = object_->if_contains(text);
    return value == nullptr ? std::nullopt : std::optional(static_cast<std::int32_t>(value->get_int64()));
  }

  /// Fills `parts.tokens` and, where asked, the words that are never merged. Must come before id_of: it checks the ids.
  Status fill(TokenizerParts& parts, std::unordered_map<std::string, std::int32_t>* whole_words) const {
    parts.tokens.reserve(object_->size() + 1024);
    for (const auto& [text, value] : *object_) {
      const std::int64_t* id = value.if_int64();
      if (id == nullptr || *id < 0 || *id > kIdMax) {
        return wrong(view_of_key(text), value, fmt::format("an integer from 0 to {}", kIdMax));
      }
      TokenEntry& entry = entry_at(parts, *id);
      if (entry.known) {
        return wrong(view_of_key(text), value, "an id that no other token has");
      }
      TokenBytes bytes = token_bytes_of(view_of_key(text));
      if (whole_words != nullptr && bytes.in_alphabet) {
        whole_words->emplace(bytes.bytes, static_cast<std::int32_t>(*id));
      }
      entry = {.bytes = std::move(bytes.bytes), .known = true};
    }
    return {};
  }

  Result<std::array<std::int32_t, 256>> byte_ids() const {
    std::array<std::int32_t, 256> ids{};
    const std::array<std::string, 256> characters = byte_characters();
    for (std::size_t byte = 0; byte < ids.size(); ++byte) {
      const std::optional<std::int32_t> id = id_of(characters[byte]);
      if (!id) {
        return Error{ErrorCode::kUnsupported,
                     fmt::format("{}: model.vocab lacks \"{}\", the token of byte {}: text with it could not be encoded", file_, characters[byte], byte)};
      }
      ids[byte] = *id;
    }
    return ids;
  }

 private:
  Vocabulary(const boost::json::object& object, std::string_view file) : object_(&object), file_(file) {}

  static std::string_view view_of_key(boost::json::string_view text) { return {text.data(), text.size()}; }
  [[nodiscard]] Error wrong(std::string_view text, const boost::json::value& value, std::string_view expected) const {
    return JsonNode(value, file_, fmt::format("model.vocab[\"{}\"]", text)).wrong(expected);
  }

  const boost::json::object* object_;
  std::string_view file_;
};

/// A merge as written: "a b", or ["a", "b"].
struct MergeText {
  std::string_view left;
  std::string_view right;
};

std::optional<MergeText> merge_text(const boost::json::value& value) {
  if (const boost::json::array* pair = value.if_array()) {
    if (pair->size() != 2 || !(*pair)[0].is_string() || !(*pair)[1].is_string()) {
      return std::nullopt;
    }
    return MergeText{view_of((*pair)[0].get_string()), view_of((*pair)[1].get_string())};
  }
  const boost::json::string* line = value.if_string();
  if (line == nullptr || std::ranges::count(*line, ' ') != 1) {
    return std::nullopt;
  }
  const std::string_view text = view_of(*line);
  const std::size_t space = text.find(' ');
  return MergeText{text.substr(0, space), text.substr(space + 1)};
}

Result<std::vector<MergeRule>> read_merges(const JsonNode& model, const Vocabulary& vocabulary, std::string_view file) {
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode node, model.at("merges"));
  const boost::json::array* array = node.value().if_array();
  if (array == nullptr || array->size() > 2 * static_cast<std::size_t>(kIdMax)) {
    return node.wrong(fmt::format("an array of at most {} merges", 2 * kIdMax));
  }
  std::vector<MergeRule> rules;
  rules.reserve(array->size());
  std::string joined;
  for (std::size_t i = 0; i < array->size(); ++i) {
    const boost::json::value& value = (*array)[i];
    // Files made from merges.txt may keep its first line.
    if (const auto* line = value.if_string(); line != nullptr && view_of(*line).starts_with("#version")) {
      continue;
    }
    const auto wrong = [&](std::string_view expected) { return JsonNode(value, file, fmt::format("model.merges[{}]", i)).wrong(expected); };
    const std::optional<MergeText> text = merge_text(value);
    if (!text) {
      return wrong("two tokens: \"a b\" or [\"a\", \"b\"]");
    }
    joined.assign(text->left).append(text->right);
    const auto left = vocabulary.id_of(text->left);
    const auto right = vocabulary.id_of(text->right);
    const auto result = vocabulary.id_of(joined);
    if (!left || !right || !result) {
      return wrong(fmt::format("tokens of model.vocab: it lacks \"{}\"", !left ? text->left : !right ? text->right : std::string_view(joined)));
    }
    rules.push_back({*left, *right, *result});
  }
  return rules;
}

Status read_added_token(const JsonNode& node, const Vocabulary& vocabulary, TokenizerParts& parts) {
  for (const std::string_view key : {"single_word", "lstrip", "rstrip"}) {
    LOCKSTEP_RETURN_IF_ERROR(require_boolean(node, key, false, false));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode content_node, node.at("content"));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view content, content_node.string());
  if (content.empty() || content.size() > kAddedTokenBytesMax) {
    return content_node.wrong(fmt::format("1 to {} bytes", kAddedTokenBytesMax));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode id_node, node.at("id"));
  LOCKSTEP_ASSIGN_OR_RETURN(const std::int64_t id, id_node.integer(0, kIdMax));
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode special_node, node.at("special"));
  LOCKSTEP_ASSIGN_OR_RETURN(const bool special, special_node.boolean());
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode normalized_node, node.at("normalized"));
  LOCKSTEP_ASSIGN_OR_RETURN(const bool normalized, normalized_node.boolean());

  const std::optional<std::int32_t> model_id = vocabulary.id_of(content);
  if (model_id && *model_id != id) {
    return id_node.wrong(fmt::format("{}, the id of \"{}\" in model.vocab", *model_id, content));
  }
  TokenEntry& entry = entry_at(parts, id);
  if (entry.known && !model_id) {
    return id_node.wrong("an id that no other token has");
  }
  entry = {.bytes = token_bytes_of(content).bytes, .known = true, .special = special};
  AddedTokenFinder& finder = normalized ? parts.normalized_added : parts.raw_added;
  finder.add(normalized && parts.normalize_nfc ? normalize_nfc(content) : std::string(content), static_cast<std::int32_t>(id));
  return {};
}

Status read_added_tokens(const JsonNode& root, const Vocabulary& vocabulary, TokenizerParts& parts) {
  const std::optional<JsonNode> node = root.find("added_tokens");
  if (!node) {
    return {};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<JsonNode> tokens, node->elements());
  if (tokens.size() > kAddedTokensMax) {
    return node->wrong(fmt::format("at most {} tokens", kAddedTokensMax));
  }
  for (const JsonNode& token : tokens) {
    LOCKSTEP_RETURN_IF_ERROR(read_added_token(token, vocabulary, parts));
  }
  return {};
}

}  // namespace

Result<TokenizerParts> read_tokenizer_file(const std::filesystem::path& path) {
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonDocument document, read_json_file(path, kFileBytesMax));
  const JsonNode root(document);
  TokenizerParts parts;
  LOCKSTEP_RETURN_IF_ERROR(read_normalizer(root, parts));
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode model, root.at("model"));
  LOCKSTEP_RETURN_IF_ERROR(check_model_options(model));
  LOCKSTEP_RETURN_IF_ERROR(read_pre_tokenizer(root, parts));
  LOCKSTEP_RETURN_IF_ERROR(check_decoder(root));
  LOCKSTEP_RETURN_IF_ERROR(check_post_processor(root));

  const std::optional<JsonNode> ignore_merges = model.find("ignore_merges");
  LOCKSTEP_ASSIGN_OR_RETURN(const bool whole, ignore_merges ? ignore_merges->boolean() : Result<bool>(false));
  std::unordered_map<std::string, std::int32_t> whole_words;
  LOCKSTEP_ASSIGN_OR_RETURN(const Vocabulary vocabulary, Vocabulary::create(model, document.file));
  LOCKSTEP_RETURN_IF_ERROR(vocabulary.fill(parts, whole ? &whole_words : nullptr));
  LOCKSTEP_ASSIGN_OR_RETURN(const auto byte_ids, vocabulary.byte_ids());
  LOCKSTEP_ASSIGN_OR_RETURN(const std::vector<MergeRule> rules, read_merges(model, vocabulary, document.file));
  parts.merger = Merger(byte_ids, rules);
  parts.merger.set_whole_words(std::move(whole_words));
  LOCKSTEP_RETURN_IF_ERROR(read_added_tokens(root, vocabulary, parts));
  return parts;
}

}  // namespace lockstep::model
