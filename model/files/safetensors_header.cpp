#include "model/files/safetensors_header.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include <boost/json/basic_parser_impl.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lockstep::model {

namespace {

namespace json = boost::json;

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kHeaderBytesMax = 100'000'000;  // the format's own limit
constexpr std::size_t kEntriesMax = 1'000'000;
constexpr std::size_t kDimensionsMax = 16;
constexpr std::size_t kNameBytesMax = 4096;

constexpr std::array<SafetensorsType, 21> kTypes{{{"BOOL", 8},    {"U8", 8},      {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F4", 4},
                                                  {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"I16", 16}, {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},
                                                  {"U32", 32},    {"F32", 32},    {"I64", 64}, {"U64", 64},    {"F64", 64},    {"C64", 64},    {"C128", 128}}};

/// Collects entries from the parser's events, so that a hostile header costs no more memory than its own length: a document tree would take ten times that.
class HeaderHandler {
 public:
  static constexpr std::size_t max_object_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_array_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_key_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_string_size = std::numeric_limits<std::size_t>::max();

  std::vector<SafetensorsEntry> entries;
  std::optional<Error> error;

  bool on_document_begin(json::error_code& /*code*/) { return true; }
  bool on_document_end(json::error_code& /*code*/) { return true; }
  bool on_comment_part(json::string_view /*text*/, json::error_code& /*code*/) { return true; }
  bool on_comment(json::string_view /*text*/, json::error_code& /*code*/) { return true; }

  bool on_object_begin(json::error_code& code) {
    ++depth_;
    if (depth_ == 1 || (depth_ == 2 && state_ == State::kMetadata)) {
      return true;
    }
    if (depth_ == 2 && state_ == State::kEntry) {
      seen_ = {};
      return true;
    }
    return fail(code, "an object where none is expected");
  }

  bool on_object_end(std::size_t /*count*/, json::error_code& code) {
    --depth_;
    if (depth_ == 1 && state_ == State::kEntry && !(seen_.type && seen_.shape && seen_.offsets)) {
      return fail(code, "lacks one of dtype, shape and data_offsets");
    }
    return true;
  }

  bool on_key_part(json::string_view part, std::size_t size, json::error_code& code) { return append(part, size, code); }
  bool on_key(json::string_view part, std::size_t size, json::error_code& code) {
    if (!append(part, size, code)) {
      return false;
    }
    const std::string key = std::exchange(text_, {});
    if (depth_ == 1) {
      return start_entry(key, code);
    }
    if (state_ == State::kMetadata) {
      return true;
    }
    return start_field(key, code);
  }

  bool on_string_part(json::string_view part, std::size_t size, json::error_code& code) { return append(part, size, code); }
  bool on_string(json::string_view part, std::size_t size, json::error_code& code) {
    if (state_ == State::kMetadata) {
      text_.clear();
      return depth_ == 2 || fail(code, "__metadata__ is a string, expected an object of strings");
    }
    if (!append(part, size, code)) {
      return false;
    }
    const std::string value = std::exchange(text_, {});
    if (depth_ != 2 || field_ != Field::kType) {
      return fail(code, fmt::format("has the string \"{}\" where none is expected", value));
    }
    const auto type = std::ranges::find(kTypes, value, &SafetensorsType::name);
    if (type == kTypes.end()) {
      error = Error{ErrorCode::kUnsupported, fmt::format("{}: dtype \"{}\" is unknown; known: {}", subject(), value, known_types())};
      return fail(code, "");
    }
    entries.back().type = *type;
    return true;
  }

  bool on_array_begin(json::error_code& code) {
    if (depth_ != 2 || state_ != State::kEntry || in_array_ || field_ == Field::kType) {
      return fail(code, "an array where none is expected");
    }
    in_array_ = true;
    numbers_.clear();
    return true;
  }
  bool on_array_end(std::size_t count, json::error_code& code) {
    in_array_ = false;
    if (field_ == Field::kShape) {
      entries.back().shape = numbers_;
      return true;
    }
    if (count != 2) {
      return fail(code, fmt::format("data_offsets has {} numbers, expected 2", count));
    }
    entries.back().begin = static_cast<std::uint64_t>(numbers_[0]);
    entries.back().end = static_cast<std::uint64_t>(numbers_[1]);
    return true;
  }

  bool on_number_part(json::string_view /*text*/, json::error_code& /*code*/) { return true; }
  bool on_int64(std::int64_t number, json::string_view /*text*/, json::error_code& code) {
    if (!in_array_ || number < 0) {
      return fail(code, fmt::format("has the number {}, expected non-negative numbers in shape and data_offsets only", number));
    }
    if (numbers_.size() == kDimensionsMax) {
      return fail(code, fmt::format("has more than {} dimensions", kDimensionsMax));
    }
    numbers_.push_back(number);
    return true;
  }
  bool on_uint64(std::uint64_t number, json::string_view /*text*/, json::error_code& code) {
    return fail(code, fmt::format("has the number {}, expected less than 2^63", number));
  }
  bool on_double(double number, json::string_view /*text*/, json::error_code& code) {
    return fail(code, fmt::format("has the number {}, expected whole numbers", number));
  }
  bool on_bool(bool /*truth*/, json::error_code& code) { return fail(code, "has a true or false, expected dtype, shape and data_offsets"); }
  bool on_null(json::error_code& code) { return fail(code, "has a null, expected dtype, shape and data_offsets"); }

 private:
  enum class State { kNothing, kMetadata, kEntry };
  enum class Field { kType, kShape, kOffsets };
  struct Seen {
    bool type = false;
    bool shape = false;
    bool offsets = false;
  };

  static std::string known_types() {
    std::vector<std::string_view> names;
    std::ranges::transform(kTypes, std::back_inserter(names), &SafetensorsType::name);
    return fmt::format("{}", fmt::join(names, ", "));
  }

  [[nodiscard]] std::string subject() const {
    return state_ == State::kEntry && !entries.empty() ? fmt::format("tensor \"{}\"", entries.back().name) : std::string("header");
  }

  bool fail(json::error_code& code, std::string_view what) {
    if (!error) {
      error = Error{ErrorCode::kInvalidArgument, fmt::format("{}: {}", subject(), what)};
    }
    code = json::error::syntax;  // any code ends the parse; the message is `error`
    return false;
  }

  /// Collects a string that may come in parts. Metadata may be long and is not kept.
  bool append(json::string_view part, std::size_t size, json::error_code& code) {
    if (state_ == State::kMetadata && depth_ == 2) {
      return true;
    }
    if (size > kNameBytesMax) {
      return fail(code, fmt::format("a name of more than {} bytes", kNameBytesMax));
    }
    text_.append(part.data(), part.size());
    return true;
  }

  bool start_entry(const std::string& key, json::error_code& code) {
    if (key == "__metadata__") {
      state_ = State::kMetadata;
      return true;
    }
    state_ = State::kEntry;
    if (entries.size() == kEntriesMax) {
      return fail(code, fmt::format("more than {} tensors", kEntriesMax));
    }
    entries.push_back({.name = key, .type = kTypes[0], .shape = {}});
    return true;
  }

  bool start_field(std::string_view key, json::error_code& code) {
    bool* seen = key == "dtype" ? &seen_.type : key == "shape" ? &seen_.shape : key == "data_offsets" ? &seen_.offsets : nullptr;
    if (seen == nullptr) {
      return fail(code, fmt::format("has the key \"{}\", expected dtype, shape and data_offsets", key));
    }
    if (*seen) {
      return fail(code, fmt::format("has the key \"{}\" twice", key));
    }
    *seen = true;
    field_ = seen == &seen_.type ? Field::kType : seen == &seen_.shape ? Field::kShape : Field::kOffsets;
    return true;
  }

  int depth_ = 0;
  State state_ = State::kNothing;
  Field field_ = Field::kType;
  Seen seen_;
  bool in_array_ = false;
  std::string text_;
  std::vector<std::int64_t> numbers_;
};

Error invalid(std::string_view file_name, const std::string& what) {
  return Error{ErrorCode::kInvalidArgument, fmt::format("{}: {}", file_name, what)};
}

/// The header's JSON text, or why there is none.
Result<std::string_view> header_text(std::span<const std::byte> file, std::string_view file_name) {
  if (file.size() < kLengthBytes) {
    return invalid(file_name, fmt::format("{} bytes, expected at least {}: it is truncated or no safetensors file", file.size(), kLengthBytes));
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  }
  if (length > kHeaderBytesMax) {
    return invalid(file_name, fmt::format("header of {} bytes, expected at most {}: it is no safetensors file", length, kHeaderBytesMax));
  }
  if (length > file.size() - kLengthBytes) {
    return invalid(file_name, fmt::format("header of {} bytes, but the file has {} in all: it is truncated", length, file.size()));
  }
  // The bytes of the map are text from here on; the parser checks that they are UTF-8.
  const auto* text = reinterpret_cast<const char*>(file.data() + kLengthBytes);
  return std::string_view(text, static_cast<std::size_t>(length));
}

/// The bytes that shape and type say, or nullopt where that overflows or ends within a byte.
std::optional<std::uint64_t> expected_bytes(const SafetensorsEntry& entry) {
  std::int64_t bits = entry.type.bits;
  for (const std::int64_t dimension : entry.shape) {
    if (__builtin_mul_overflow(bits, dimension, &bits)) {
      return std::nullopt;
    }
  }
  if (bits % 8 != 0) {
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(bits) / 8;
}

/// Checks that the entries cover the `data_bytes` behind the header once, in whatever order they are listed.
Status check_layout(const std::vector<SafetensorsEntry>& entries, std::uint64_t data_bytes, std::string_view file_name) {
  std::vector<const SafetensorsEntry*> order;
  order.reserve(entries.size());
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin > entry.end || entry.end > data_bytes) {
      return invalid(file_name, fmt::format("tensor \"{}\": data_offsets [{}, {}], but the file has {} bytes of data: it is truncated or damaged", entry.name,
                                            entry.begin, entry.end, data_bytes));
    }
    const std::optional<std::uint64_t> bytes = expected_bytes(entry);
    if (!bytes || *bytes != entry.end - entry.begin) {
      return invalid(file_name, fmt::format("tensor \"{}\": data_offsets span {} bytes, expected {} for {} of shape [{}]", entry.name, entry.end - entry.begin,
                                            bytes ? fmt::format("{}", *bytes) : "an amount that overflows", entry.type.name, fmt::join(entry.shape, ", ")));
    }
    order.push_back(&entry);
  }
  std::ranges::sort(order, {}, [](const SafetensorsEntry* entry) { return std::pair(entry->begin, entry->end); });
  std::uint64_t covered = 0;
  for (const SafetensorsEntry* entry : order) {
    if (entry->begin != covered) {
      return invalid(file_name, fmt::format("tensor \"{}\": starts at {}, expected {}: it {}", entry->name, entry->begin, covered,
                                            entry->begin < covered ? "overlaps the tensor before" : "leaves a gap"));
    }
    covered = entry->end;
  }
  if (covered != data_bytes) {
    return invalid(file_name, fmt::format("{} bytes of data, but its tensors take {}", data_bytes, covered));
  }
  return {};
}

}  // namespace

Result<SafetensorsHeader> read_safetensors_header(std::span<const std::byte> file, std::string_view file_name) {
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view text, header_text(file, file_name));
  if (text.empty() || text.front() != '{') {
    return invalid(file_name, "the header does not start with {: it is no safetensors file");
  }
  json::parse_options options;
  options.max_depth = 4;  // object, entry, array
  json::basic_parser<HeaderHandler> parser(options);
  json::error_code code;
  const std::size_t parsed = parser.write_some(false, text.data(), text.size(), code);
  HeaderHandler& handler = parser.handler();
  if (handler.error) {
    handler.error->message = fmt::format("{}: {}", file_name, handler.error->message);
    return *handler.error;
  }
  if (code || !parser.done()) {
    return invalid(file_name, fmt::format("the header is not JSON: {} at byte {}", code.message(), parsed));
  }
  if (const std::size_t rest = text.find_first_not_of(" \t\r\n", parsed); rest != std::string_view::npos) {
    return invalid(file_name, fmt::format("the header has more than one JSON value, at byte {}", rest));
  }
  SafetensorsHeader header{.entries = std::move(handler.entries), .text = text};
  std::ranges::sort(header.entries, {}, &SafetensorsEntry::name);
  if (const auto twice = std::ranges::adjacent_find(header.entries, {}, &SafetensorsEntry::name); twice != header.entries.end()) {
    return invalid(file_name, fmt::format("tensor \"{}\" is listed twice", twice->name));
  }
  const std::uint64_t data_start = kLengthBytes + text.size();
  LOCKSTEP_RETURN_IF_ERROR(check_layout(header.entries, file.size() - data_start, file_name));
  for (SafetensorsEntry& entry : header.entries) {
    entry.begin += data_start;
    entry.end += data_start;
  }
  return header;
}

}  // namespace lockstep::model
