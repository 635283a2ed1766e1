// print_tables options|metrics|routes: a table of docs/ in Markdown, made from what the daemon itself uses. pages.py puts it into its page.
#include <cstdio>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "daemon/metrics/metrics.hpp"
#include "daemon/options/option_table.hpp"
#include "daemon/routes.hpp"
#include "lockstep/forward_context.hpp"

namespace {

using namespace lockstep::daemon;

// ---- options -----------------------------------------------------------------------------------------------------------------------------------------------

std::string options_tables() {
  std::string text;
  std::string_view group;
  for (const OptionLine& line : option_table()) {
    if (group != line.group) {
      group = line.group;
      text += fmt::format("\n## {}\n\n| Option | Default | What it does |\n|---|---|---|\n", group);
    }
    const bool in_words = std::string_view(line.fallback).starts_with('(');
    const std::string fallback = in_words ? option_default(line) : fmt::format("`{}`", line.fallback);
    const std::string_view meaning = std::string_view(line.page).empty() ? line.help : line.page;
    text += fmt::format("| `{}` | {} | {} |\n", option_flag(line.name), fallback, meaning);
  }
  return text.substr(1);
}

// ---- metrics -----------------------------------------------------------------------------------------------------------------------------------------------

/// A family as the exposition format shows it.
struct Family {
  std::string name, type, help;
  std::vector<std::string> labels;                      ///< in order of appearance
  std::map<std::string, std::set<std::string>> values;  ///< of each label
};

struct Section {
  const char* title;
  std::vector<std::string_view> prefixes;
};

/// A family belongs to the first section that has a prefix of its name.
const std::vector<Section>& sections() {
  static const std::vector<Section> kSections{
      {"What runs", {"lockstep_build_", "lockstep_config_", "lockstep_group_", "lockstep_up_", "lockstep_startup_"}},
      {"HTTP", {"lockstep_http_"}},
      {"Requests",
       {"lockstep_request_", "lockstep_requests_", "lockstep_time_to_first_", "lockstep_inter_token_", "lockstep_prompt_", "lockstep_generated_",
        "lockstep_kv_"}},
      {"Steps and the group", {"lockstep_"}},
      {"Process", {"process_"}},
  };
  return kSections;
}

/// Reads `{name="value",...}` of a series.
void add_labels(std::string_view series, Family& family) {
  for (std::size_t at = series.find('{'); at != std::string_view::npos && series[at] != '}';) {
    const std::size_t equals = series.find("=\"", at);
    const std::size_t end = series.find('"', equals + 2);
    const std::string name(series.substr(at + 1, equals - at - 1));
    if (name != "rank" && name != "le" && name != "quantile") {
      if (!family.values.contains(name)) {
        family.labels.push_back(name);
      }
      family.values[name].emplace(series.substr(equals + 2, end - equals - 2));
    }
    at = end + 1;
  }
}

std::vector<Family> families(const std::string& exposition) {
  std::vector<Family> result;
  std::istringstream lines(exposition);
  for (std::string line; std::getline(lines, line);) {
    constexpr std::string_view kHelp = "# HELP ";
    constexpr std::string_view kType = "# TYPE ";
    if (line.starts_with(kHelp)) {
      const std::size_t space = line.find(' ', kHelp.size());
      result.push_back({.name = line.substr(kHelp.size(), space - kHelp.size()), .help = line.substr(space + 1)});
    } else if (line.starts_with(kType)) {
      result.back().type = line.substr(line.rfind(' ') + 1);
    } else {
      add_labels(line, result.back());
    }
  }
  return result;
}

/// "state: free, used" where a label has a few fixed values; the name alone where they depend on the group, the model or the requests.
std::string labels_of(const Family& family) {
  static const std::set<std::string_view> kOpenLabels{"route", "method", "code", "peer", "batch_size"};
  std::string text;
  for (const std::string& label : family.labels) {
    text += text.empty() ? "" : "; ";
    text += label;
    const std::set<std::string>& values = family.values.at(label);
    if (values.size() > 1 && !kOpenLabels.contains(label)) {
      text += fmt::format(": {}", fmt::join(values, ", "));
    }
  }
  return text;
}

const Section* section_of(std::string_view family) {
  for (const Section& section : sections()) {
    for (const std::string_view prefix : section.prefixes) {
      if (family.starts_with(prefix)) {
        return &section;
      }
    }
  }
  return nullptr;
}

std::string metrics_tables() {
  lockstep::ForwardTimingTracker timings;
  timings.record(1, 1.0);
  const auto metrics =
      Metrics::create({.world_size = 2, .version = "1", .model = "m", .device = "d", .load_format = "l", .transport = "t", .forward_timings = &timings});
  metrics->add_routes(make_routes({.version = "1", .models = {"m"}, .max_model_len = 1}));
  metrics->http_observer().on_response({.route = "/health", .method = "GET", .status = 200, .duration = {}});
  const std::vector<Family> all = families(metrics->text());
  std::string text;
  for (const Section& section : sections()) {
    text += fmt::format("\n## {}\n\n| Family | Type | Labels | Meaning |\n|---|---|---|---|\n", section.title);
    for (const Family& family : all) {
      if (section_of(family.name) == &section) {
        text += fmt::format("| `{}` | {} | {} | {} |\n", family.name, family.type, labels_of(family), family.help);
      }
    }
  }
  return text.substr(1);
}

// ---- routes ------------------------------------------------------------------------------------------------------------------------------------------------

std::string routes_table() {
  std::string text = "| Path | Method | Key | Answer |\n|---|---|---|---|\n";
  for (const Route& route : make_routes({.version = "1", .models = {"m"}, .max_model_len = 1})) {
    text += fmt::format("| `{}` | {} | {} | {} |\n", route.path, route.method, route.access == Access::kOpen ? "no" : "yes", route.doc.summary);
  }
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view table = argc == 2 ? argv[1] : "";
  if (table != "options" && table != "metrics" && table != "routes") {
    std::fprintf(stderr, "usage: print_tables options|metrics|routes\n");
    return 2;
  }
  const std::string text = table == "options" ? options_tables() : table == "metrics" ? metrics_tables() : routes_table();
  std::fputs(text.c_str(), stdout);
  return 0;
}
