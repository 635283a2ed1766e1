#include "model/json/json_node.hpp"

#include <cmath>
#include <fstream>
#include <system_error>

#include <boost/json/monotonic_resource.hpp>
#include <boost/json/parse.hpp>
#include <fmt/format.h>

namespace lockstep::model {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDepthMax = 32;
constexpr std::size_t kShownCharacters = 60;

std::string shorten(std::string_view text) {
  return text.size() <= kShownCharacters ? std::string(text) : fmt::format("{}... ({} bytes)", text.substr(0, kShownCharacters), text.size());
}

}  // namespace

Result<std::string> read_file(const fs::path& path, std::size_t bytes_max) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  if (!fs::exists(status)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: no such file; expected a model folder in Hugging Face's form", path.string())};
  }
  // A pipe or a device could block the start for ever.
  if (!fs::is_regular_file(status)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: not a regular file", path.string())};
  }
  const std::uintmax_t bytes = fs::file_size(path, code);
  if (code) {
    return Error{ErrorCode::kInternal, fmt::format("{}: cannot read its size: {}", path.string(), code.message())};
  }
  if (bytes > bytes_max) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: {} bytes, expected at most {}", path.string(), bytes, bytes_max)};
  }
  std::string text(static_cast<std::size_t>(bytes), '\0');
  std::ifstream stream(path, std::ios::binary);
  if (!stream.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: could not read its {} bytes: check its permissions", path.string(), bytes)};
  }
  return text;
}

Result<JsonDocument> read_json_file(const fs::path& path, std::size_t bytes_max) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string text, read_file(path, bytes_max));
  boost::json::parse_options options;
  options.max_depth = kDepthMax;
  boost::json::error_code code;
  // The document is dropped as a whole after start-up: a monotonic resource makes a 10 MB tokenizer parse several times faster.
  boost::json::value root = boost::json::parse(text, code, boost::json::make_shared_resource<boost::json::monotonic_resource>(), options);
  if (code) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: not JSON: {}", path.string(), code.message())};
  }
  return JsonDocument{path.string(), std::move(root)};
}

Result<JsonNode> JsonNode::at(std::string_view key) const {
  const boost::json::object* object = value_->if_object();
  if (object == nullptr) {
    return wrong(fmt::format("an object with the key \"{}\"", key));
  }
  const std::string place = place_.empty() ? std::string(key) : fmt::format("{}.{}", place_, key);
  const boost::json::value* member = object->if_contains(key);
  if (member == nullptr) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: {} is missing", file_, place)};
  }
  return JsonNode(*member, file_, place);
}

std::optional<JsonNode> JsonNode::find(std::string_view key) const {
  const boost::json::object* object = value_->if_object();
  const boost::json::value* member = object == nullptr ? nullptr : object->if_contains(key);
  if (member == nullptr || member->is_null()) {
    return std::nullopt;
  }
  return JsonNode(*member, file_, place_.empty() ? std::string(key) : fmt::format("{}.{}", place_, key));
}

Result<std::vector<JsonNode>> JsonNode::elements() const {
  const boost::json::array* array = value_->if_array();
  if (array == nullptr) {
    return wrong("an array");
  }
  std::vector<JsonNode> result;
  result.reserve(array->size());
  for (std::size_t i = 0; i < array->size(); ++i) {
    result.emplace_back((*array)[i], file_, fmt::format("{}[{}]", place_, i));
  }
  return result;
}

Result<std::int64_t> JsonNode::integer(std::int64_t smallest, std::int64_t largest) const {
  const std::int64_t* number = value_->if_int64();
  if (number == nullptr || *number < smallest || *number > largest) {
    return wrong(fmt::format("an integer from {} to {}", smallest, largest));
  }
  return *number;
}

Result<double> JsonNode::number(double smallest, double largest) const {
  boost::json::error_code code;
  const double number = value_->is_number() ? value_->to_number<double>(code) : std::nan("");
  if (code || !(number >= smallest && number <= largest)) {
    return wrong(fmt::format("a number from {} to {}", smallest, largest));
  }
  return number;
}

Result<bool> JsonNode::boolean() const {
  const bool* truth = value_->if_bool();
  if (truth == nullptr) {
    return wrong("true or false");
  }
  return *truth;
}

Result<std::string_view> JsonNode::string() const {
  const boost::json::string* text = value_->if_string();
  if (text == nullptr) {
    return wrong("a string");
  }
  return std::string_view(text->data(), text->size());
}

Error JsonNode::wrong(std::string_view expected, ErrorCode code) const {
  return Error{code, fmt::format("{}: {} is {}, expected {}", file_, place_.empty() ? "the document" : place_, describe(*value_), expected)};
}

std::string describe(const boost::json::value& value) {
  switch (value.kind()) {
    case boost::json::kind::null:
      return "null";
    case boost::json::kind::bool_:
      return value.get_bool() ? "true" : "false";
    case boost::json::kind::int64:
      return fmt::format("{}", value.get_int64());
    case boost::json::kind::uint64:
      return fmt::format("{}", value.get_uint64());
    case boost::json::kind::double_:
      return fmt::format("{}", value.get_double());
    case boost::json::kind::string:
      return fmt::format("\"{}\"", shorten({value.get_string().data(), value.get_string().size()}));
    case boost::json::kind::array:
      return fmt::format("an array of {}", value.get_array().size());
    case boost::json::kind::object:
      return fmt::format("an object of {}", value.get_object().size());
  }
  return "unknown";
}

}  // namespace lockstep::model
