#include "daemon/http/access/api_keys.hpp"

#include <algorithm>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <optional>
#include <sstream>

#include <fmt/format.h>

#include "daemon/files/regular_file.hpp"

namespace lockstep::daemon {
namespace {

constexpr std::size_t kFileBytesMax = std::size_t{1} << 20;

std::optional<std::array<unsigned char, 32>> digest_of(std::string_view text) {
  std::array<unsigned char, 32> digest{};
  unsigned int length = 0;
  if (EVP_Digest(text.data(), text.size(), digest.data(), &length, EVP_sha256(), nullptr) != 1 || length != digest.size()) {
    return std::nullopt;
  }
  return digest;
}

/// What follows the scheme "Bearer", or nothing.
std::string_view bearer_token(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer";
  const auto same = [](char given, char wanted) { return static_cast<char>(given >= 'A' && given <= 'Z' ? given | 0x20 : given) == wanted; };
  if (authorization.size() <= kScheme.size() || authorization[kScheme.size()] != ' ' ||
      !std::ranges::equal(authorization.substr(0, kScheme.size()), kScheme, same)) {
    return {};
  }
  const std::size_t begin = authorization.find_first_not_of(' ', kScheme.size());
  return begin == std::string_view::npos ? std::string_view() : authorization.substr(begin, authorization.find_last_not_of(' ') + 1 - begin);
}

bool fits_a_header(std::string_view key) {
  return !key.empty() && std::ranges::all_of(key, [](char c) { return c > ' ' && c < '\x7f'; });
}

}  // namespace

Result<ApiKeys> ApiKeys::create(const std::vector<std::string>& keys) {
  ApiKeys result;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (!fits_a_header(keys[i])) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("--api-key, --api-key-file: API key {} of {} is {}; expected printable ASCII characters without spaces", i + 1, keys.size(),
                               keys[i].empty() ? "empty" : "not such that a header could carry it")};
    }
    const auto digest = digest_of(keys[i]);
    if (!digest) {
      return Error{ErrorCode::kInternal, "OpenSSL has no SHA-256 (EVP_Digest failed): cannot check API keys"};
    }
    result.digests_.push_back(*digest);
  }
  return result;
}

bool ApiKeys::accepts(std::string_view authorization) const {
  const auto digest = digest_of(bearer_token(authorization));
  if (!digest) {
    return false;
  }
  unsigned accepted = 0;
  for (const Digest& known : digests_) {  // all of them, so that the time does not tell which one it was
    accepted |= static_cast<unsigned>(CRYPTO_memcmp(known.data(), digest->data(), known.size()) == 0);
  }
  return accepted != 0;
}

Result<KeyFile> read_key_file(const std::filesystem::path& file) {
  KeyFile result;
  const Result<RegularFile> read = read_regular_file(file, kFileBytesMax);
  if (!read) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--api-key-file {}: {}; expected a file with one API key a line", file.string(), read.error().message)};
  }
  std::istringstream input(read->text);
  if (read->others_may_read) {
    result.warning = fmt::format("--api-key-file {} may be read by other users: chmod 600 it", file.string());
  }
  std::size_t line_number = 0;
  for (std::string line; std::getline(input, line);) {
    ++line_number;
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ' || line.back() == '\t')) {
      line.pop_back();
    }
    if (!line.empty() && line.front() != '#') {
      if (!fits_a_header(line)) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("--api-key-file {}: line {} {}; expected one API key a line, of printable ASCII characters without spaces", file.string(),
                                 line_number, line.front() == ' ' || line.front() == '\t' ? "begins with a space" : "holds what no header could carry")};
      }
      result.keys.push_back(line);
    }
  }
  if (result.keys.empty()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--api-key-file {}: holds no key; expected one a line", file.string())};
  }
  return result;
}

}  // namespace lockstep::daemon
