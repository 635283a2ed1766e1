#include "daemon/api/embeddings/embedding_body.hpp"

#include <bit>
#include <iterator>
#include <openssl/evp.h>

#include <boost/json.hpp>
#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

void append_base64(std::span<const float> values, std::string& out) {
  std::vector<unsigned char> bytes;
  bytes.reserve(values.size() * sizeof(float));
  for (const float value : values) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (unsigned shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<unsigned char>(bits >> shift & 0xffU));
    }
  }
  std::vector<unsigned char> text((bytes.size() + 2) / 3 * 4 + 1);
  const int length = EVP_EncodeBlock(text.data(), bytes.data(), static_cast<int>(bytes.size()));
  out.append(text.begin(), text.begin() + length);
}

void append_numbers(std::span<const float> values, std::string& out) {
  const auto to = std::back_inserter(out);
  for (std::size_t i = 0; i < values.size(); ++i) {
    fmt::format_to(to, "{}{}", i == 0 ? "" : ",", values[i]);  // the shortest text that reads as the same float
  }
}

}  // namespace

std::string embedding_body(std::string_view model, std::span<const std::vector<float>> embeddings, bool base64, std::int64_t prompt_tokens) {
  // By hand: thousands of numbers would each become a JSON value first.
  std::string out = R"({"object":"list","data":[)";
  for (std::size_t i = 0; i < embeddings.size(); ++i) {
    out += i == 0 ? "" : ",";
    out += fmt::format(R"({{"object":"embedding","index":{},"embedding":)", i);
    out += base64 ? '"' : '[';
    base64 ? append_base64(embeddings[i], out) : append_numbers(embeddings[i], out);
    out += base64 ? '"' : ']';
    out += '}';
  }
  out += fmt::format(R"(],"model":{},"usage":{{"prompt_tokens":{},"total_tokens":{}}}}})",
                     boost::json::serialize(boost::json::string(boost::json::string_view(model.data(), model.size()))), prompt_tokens, prompt_tokens);
  return out;
}

}  // namespace lockstep::daemon
