#include "daemon/options/sources/config_file.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "daemon/files/regular_file.hpp"
#include "daemon/options/option_table.hpp"
#include "daemon/options/values/nearest_name.hpp"

namespace lockstep::daemon {
namespace {

constexpr std::size_t kFileBytesMax = std::size_t{1} << 20;
constexpr std::string_view kSpace = " \t\r";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

std::string_view trim(std::string_view text) {
  const std::size_t begin = std::min(text.find_first_not_of(kSpace), text.size());
  const std::size_t end = text.find_last_not_of(kSpace);
  return end == std::string_view::npos ? std::string_view() : text.substr(begin, end + 1 - begin);
}

/// Reads one file. CLI11's own reader (2.1) cuts values at a # also within quotes and splits them at commas and spaces, so that a key would be shortened
/// without a word; it also knows no line numbers.
class ConfigReader {
 public:
  ConfigReader(std::string_view text, std::string_view file) : rest_(text), file_(file) {}

  Result<Settings> read() {
    if (rest_.starts_with(kByteOrderMark)) {
      rest_.remove_prefix(kByteOrderMark.size());
    }
    while (next_line()) {
      if (trim(line_).empty() || line_.front() == '#' || line_.front() == ';' || line_ == "[default]") {
        continue;
      }
      LOCKSTEP_RETURN_IF_ERROR(line_.front() == '[' ? bad(fmt::format("{} is a section; expected lines of option = value, without sections", line_))
                                                    : take_line());
    }
    return std::move(settings_);
  }

 private:
  bool next_line() {
    if (rest_.empty()) {
      return false;
    }
    const std::size_t end = std::min(rest_.find('\n'), rest_.size());
    line_ = trim(rest_.substr(0, end));
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    ++number_;
    return true;
  }

  Status bad(std::string_view what) const { return Error{ErrorCode::kInvalidArgument, fmt::format("{} line {}: {}", file_, number_, what)}; }

  Status take_line() {
    const std::size_t equals = line_.find('=');
    std::string_view name = trim(line_.substr(0, std::min({equals, line_.find(" #"), line_.size()})));
    if (name.size() > 2 && (name.front() == '"' || name.front() == '\'') && name.back() == name.front()) {
      name = name.substr(1, name.size() - 2);
    }
    const auto line = std::ranges::find_if(option_table(), [&](const OptionLine& candidate) { return candidate.in_file && name == candidate.name; });
    if (line == option_table().end()) {
      return unknown(name);
    }
    Setting setting{.source = fmt::format("in {} line {}", file_, number_)};
    if (const auto [earlier, is_new] = settings_.try_emplace(std::string(name), setting); !is_new) {
      return bad(fmt::format("{} is there already, {}; expected once{}", name, earlier->second.source,
                             line->kind.clear == nullptr ? "" : fmt::format(", several values as {} = [\"a\", \"b\"]", name)));
    }
    if (equals != std::string_view::npos) {
      line_ = trim(line_.substr(equals + 1));
      LOCKSTEP_RETURN_IF_ERROR(line_.starts_with('[') ? take_array(*line, setting) : take_single(setting));
    } else if (line->kind.is_switch) {
      setting.values.emplace_back("true");
    } else {
      return bad(fmt::format("{0} has no value; expected {0} = value", name));
    }
    settings_.insert_or_assign(std::string(name), std::move(setting));
    return {};
  }

  Status unknown(std::string_view name) const {
    std::vector<std::string> names;
    for (const OptionLine& line : option_table()) {
      if (line.in_file) {
        names.emplace_back(line.name);
      }
    }
    const std::string nearest = nearest_name(name, names);
    return bad(fmt::format("\"{}\" is no option of lockstepd for a file{}", name,
                           nearest.empty() ? "; expected lines of option = value, see lockstepd --help" : fmt::format("; did you mean \"{}\"?", nearest)));
  }

  /// One value and what may follow it on its line.
  Status take_single(Setting& setting) {
    LOCKSTEP_ASSIGN_OR_RETURN(std::string value, take_value(false));
    setting.values.push_back(std::move(value));
    return nothing_follows();
  }

  Status take_array(const OptionLine& line, Setting& setting) {
    if (line.kind.clear == nullptr) {
      return bad(fmt::format("{0} takes one value, not an array; expected {0} = value", line.name));
    }
    line_.remove_prefix(1);
    for (;;) {
      line_ = trim(line_);
      while (line_.empty() || line_.front() == '#') {
        if (!next_line()) {
          return bad(fmt::format("the array of {} is not closed; expected ]", line.name));
        }
      }
      if (line_.front() == ']') {
        line_.remove_prefix(1);
        // "name = []" sets nothing, and must not pass for a list that holds something.
        return setting.values.empty() ? bad(fmt::format("the array of {} is empty; expected {}", line.name, line.kind.expected())) : nothing_follows();
      }
      LOCKSTEP_ASSIGN_OR_RETURN(std::string value, take_value(true));
      setting.values.push_back(std::move(value));
      line_ = trim(line_);
      if (line_.starts_with(',')) {
        line_.remove_prefix(1);
      } else if (!line_.empty() && line_.front() != ']' && line_.front() != '#') {
        return bad(fmt::format("a comma is missing between the values of {}", line.name));
      }
    }
  }

  Result<std::string> take_value(bool in_array) {
    if (line_.starts_with('"') || line_.starts_with('\'')) {
      return take_quoted();
    }
    std::size_t end = line_.starts_with('#') ? 0 : std::min({line_.find(" #"), line_.find("\t#"), line_.size()});
    if (in_array) {
      end = std::min(end, line_.find_first_of(",]"));
    }
    const std::string_view value = trim(line_.substr(0, end));
    line_.remove_prefix(end);
    return std::string(value);
  }

  Result<std::string> take_quoted() {
    const char quote = line_.front();
    std::string value;
    for (std::size_t i = 1; i < line_.size(); ++i) {
      const bool escaped = quote == '"' && line_[i] == '\\';
      if (line_[i] == quote) {
        line_.remove_prefix(i + 1);
        return value;
      }
      if (escaped && (i + 1 == line_.size() || (line_[i + 1] != '"' && line_[i + 1] != '\\'))) {
        return bad("after a backslash in \"...\" comes \" or one more backslash; or write the value in '...'").error();
      }
      i += escaped ? 1 : 0;
      value += line_[i];
    }
    return bad(fmt::format("a quote is not closed; expected {} at the end of the value", quote)).error();
  }

  Status nothing_follows() {
    const std::string_view left = trim(line_);
    return left.empty() || left.front() == '#' ? Status() : bad("something follows the value; expected the end of the line or a comment after #");
  }

  std::string_view rest_;
  std::string_view file_;
  std::string_view line_;  ///< what is left of the current one, trimmed
  int number_ = 0;
  Settings settings_;
};

}  // namespace

Result<Settings> read_config_text(std::string_view text, std::string_view file) {
  return ConfigReader(text, file).read();
}

Result<Settings> read_config_file(const std::filesystem::path& file) {
  const Result<RegularFile> read = read_regular_file(file, kFileBytesMax);
  if (!read) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("--config {}: {}; expected a file of lines of option = value", file.string(), read.error().message)};
  }
  return read_config_text(read->text, file.string());
}

}  // namespace lockstep::daemon
