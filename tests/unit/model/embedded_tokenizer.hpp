// The embedded model's tokenizer.json, for tests that open it or changed forms of it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <boost/json.hpp>
#include <gtest/gtest.h>

#include "lockstep/model/tokenizer.hpp"
#include "tests/unit/model/temporary_folder.hpp"

namespace lockstep::model {

inline boost::json::value read_json(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  return boost::json::parse(text);
}

inline const boost::json::object& embedded_tokenizer_json() {
  static const boost::json::value json = read_json(std::filesystem::path(LOCKSTEP_EMBEDDED_MODEL) / "tokenizer.json");
  return json.get_object();
}

inline Result<std::unique_ptr<Tokenizer>> open_tokenizer(std::string_view json) {
  const TemporaryFolder folder;
  return Tokenizer::open(folder.write("tokenizer.json", json));
}

inline std::unique_ptr<Tokenizer> open_embedded_tokenizer() {
  auto tokenizer = Tokenizer::open(std::filesystem::path(LOCKSTEP_EMBEDDED_MODEL) / "tokenizer.json");
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return tokenizer ? std::move(*tokenizer) : nullptr;
}

inline std::vector<std::int32_t> ids_of(const boost::json::value& array) {
  return boost::json::value_to<std::vector<std::int32_t>>(array);
}

inline std::string text_of(const boost::json::value& text) {
  return boost::json::value_to<std::string>(text);
}

}  // namespace lockstep::model
