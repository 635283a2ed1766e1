// JSON of model files: reading with caps, and typed access whose errors name file, place, found and expected.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/value.hpp>

#include "lockstep/core/result.hpp"

namespace lockstep::model {

/// A whole file as bytes.
/// Errors  kInvalidArgument: missing, not a regular file, larger than `bytes_max`; kInternal: a read failed.
[[nodiscard]] Result<std::string> read_file(const std::filesystem::path& path, std::size_t bytes_max);

/// A JSON document and where it came from. Movable; a JsonNode points into it.
struct JsonDocument {
  std::string file;
  boost::json::value root;
};

/// Parses at most `bytes_max` bytes, nested at most 32 deep. Of equal keys in one object the last counts, as with the reference's parsers.
/// Errors  kInvalidArgument naming file, offset and what the parser found.
[[nodiscard]] Result<JsonDocument> read_json_file(const std::filesystem::path& path, std::size_t bytes_max);

/// One value of a document with its place ("model.merges[3]").      Ownership  borrows the document.      Threads  a value.
class JsonNode {
 public:
  explicit JsonNode(const JsonDocument& document) : JsonNode(document.root, document.file, "") {}
  JsonNode(const boost::json::value& value, std::string_view file, std::string place) : value_(&value), file_(file), place_(std::move(place)) {}

  [[nodiscard]] const boost::json::value& value() const { return *value_; }
  [[nodiscard]] bool is_null() const { return value_->is_null(); }

  /// The member `key` of this object. Errors  kInvalidArgument: not an object, or no such key.
  [[nodiscard]] Result<JsonNode> at(std::string_view key) const;
  /// The member `key` unless it is absent or null; nullopt too when this is no object.
  [[nodiscard]] std::optional<JsonNode> find(std::string_view key) const;
  /// The elements of this array.
  [[nodiscard]] Result<std::vector<JsonNode>> elements() const;

  [[nodiscard]] Result<std::int64_t> integer(std::int64_t smallest, std::int64_t largest) const;
  [[nodiscard]] Result<double> number(double smallest, double largest) const;
  [[nodiscard]] Result<bool> boolean() const;
  /// The text, borrowed from the document.
  [[nodiscard]] Result<std::string_view> string() const;

  /// "FILE: PLACE is FOUND, expected EXPECTED".
  [[nodiscard]] Error wrong(std::string_view expected, ErrorCode code = ErrorCode::kInvalidArgument) const;

 private:
  const boost::json::value* value_;
  std::string_view file_;
  std::string place_;
};

/// A JSON value in an error message: scalars written out and shortened, the kind and size of the others.
[[nodiscard]] std::string describe(const boost::json::value& value);

}  // namespace lockstep::model
