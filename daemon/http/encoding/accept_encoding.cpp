#include "daemon/http/encoding/accept_encoding.hpp"

#include <algorithm>
#include <optional>

namespace lockstep::daemon {
namespace {

char lower(char c) {
  return static_cast<char>(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
}

bool same_word(std::string_view given, std::string_view wanted) {
  return std::ranges::equal(given, wanted, [](char a, char b) { return lower(a) == b; });
}

std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t");
  return begin == std::string_view::npos ? std::string_view() : text.substr(begin, text.find_last_not_of(" \t") + 1 - begin);
}

/// "0" to "1" with at most three digits behind the point, in thousandths.
std::optional<int> quality_of(std::string_view text) {
  if (text.empty() || text.size() > 5 || (text[0] != '0' && text[0] != '1') || (text.size() > 1 && text[1] != '.')) {
    return std::nullopt;
  }
  int thousandths = (text[0] - '0') * 1000;
  int unit = 100;
  for (const char c : text.substr(std::min<std::size_t>(2, text.size()))) {
    if (c < '0' || c > '9') {
      return std::nullopt;
    }
    thousandths += (c - '0') * unit;
    unit /= 10;
  }
  return thousandths <= 1000 ? std::optional(thousandths) : std::nullopt;
}

/// The quality of one element, 1000 where it says none, 0 where it cannot be understood.
int element_quality(std::string_view element) {
  const auto semicolon = element.find(';');
  if (semicolon == std::string_view::npos) {
    return 1000;
  }
  const std::string_view parameter = trimmed(element.substr(semicolon + 1));
  const bool is_quality = parameter.size() > 2 && lower(parameter[0]) == 'q' && parameter[1] == '=';
  return is_quality ? quality_of(parameter.substr(2)).value_or(0) : 0;
}

}  // namespace

bool accepts_gzip(std::string_view accept_encoding) {
  std::optional<int> gzip;
  std::optional<int> identity;
  std::optional<int> any;
  while (!accept_encoding.empty()) {
    const auto comma = accept_encoding.find(',');
    const std::string_view element = trimmed(accept_encoding.substr(0, comma));
    accept_encoding = comma == std::string_view::npos ? std::string_view() : accept_encoding.substr(comma + 1);
    const std::string_view name = trimmed(element.substr(0, element.find(';')));
    if (same_word(name, "gzip") || same_word(name, "x-gzip")) {
      gzip = element_quality(element);
    } else if (same_word(name, "identity")) {
      identity = element_quality(element);
    } else if (name == "*") {
      any = element_quality(element);
    }
  }
  const int gzip_quality = gzip.value_or(any.value_or(0));
  return gzip_quality > 0 && gzip_quality >= identity.value_or(0);
}

}  // namespace lockstep::daemon
