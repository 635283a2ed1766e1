#include "comm/agreement/divergence.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace lockstep::comm {

namespace {

// A log line must stay readable when 4,096 members disagree in 4,096 ways.
constexpr std::size_t kMaxGroups = 8;
constexpr std::size_t kMaxRuns = 16;

struct Group {
  std::int64_t value = 0;
  std::vector<int> members;  // ascending
};

std::vector<Group> group_by_value(std::span<const std::int64_t> values) {
  std::vector<std::pair<std::int64_t, int>> sorted;
  sorted.reserve(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    sorted.emplace_back(values[i], static_cast<int>(i));
  }
  std::ranges::sort(sorted);
  std::vector<Group> groups;
  for (const auto& [value, member] : sorted) {
    if (groups.empty() || groups.back().value != value) {
      groups.push_back({value, {}});
    }
    groups.back().members.push_back(member);
  }
  std::ranges::sort(groups, [](const Group& a, const Group& b) {
    return a.members.size() != b.members.size() ? a.members.size() > b.members.size() : a.members.front() < b.members.front();
  });
  return groups;
}

void append_members(std::string& out, const std::vector<int>& members) {
  out += members.size() == 1 ? "member " : "members ";
  std::size_t runs = 0;
  for (std::size_t begin = 0; begin < members.size();) {
    if (runs == kMaxRuns) {
      fmt::format_to(std::back_inserter(out), " and {} more", members.size() - begin);
      return;
    }
    std::size_t end = begin + 1;
    while (end < members.size() && members[end] == members[end - 1] + 1) {
      ++end;
    }
    if (end - begin == 2) {
      --end;  // two neighbours read better as "2, 3"
    }
    out += runs == 0 ? "" : ", ";
    out += end - begin == 1 ? fmt::format("{}", members[begin]) : fmt::format("{}-{}", members[begin], members[end - 1]);
    begin = end;
    ++runs;
  }
}

std::string describe_groups(const std::vector<Group>& groups, ValueFormat format) {
  std::string out;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (i == kMaxGroups) {
      fmt::format_to(std::back_inserter(out), ", and {} other values", groups.size() - i);
      break;
    }
    out += i == 0 ? "" : ", ";
    append_members(out, groups[i].members);
    out += groups[i].members.size() == 1 ? " has " : " have ";
    out += format_value(groups[i].value, format);
  }
  return out;
}

}  // namespace

std::string format_value(std::int64_t value, ValueFormat format) {
  switch (format) {
    case ValueFormat::kDecimal:
      break;
    case ValueFormat::kHex32:
      return fmt::format("0x{:08x}", static_cast<std::uint32_t>(value));
    case ValueFormat::kHex64:
      return fmt::format("0x{:016x}", static_cast<std::uint64_t>(value));
  }
  return fmt::format("{}", value);
}

std::string describe_values(std::span<const std::int64_t> values, ValueFormat format) {
  return describe_groups(group_by_value(values), format);
}

Error field_differs(std::string_view field, std::span<const std::int64_t> values, ValueFormat format, std::string_view advice) {
  const std::vector<Group> groups = group_by_value(values);
  Error error{ErrorCode::kDiverged, fmt::format("{} differs: {}; {}", field, describe_groups(groups, format), advice)};
  if (const Group& majority = groups.front(); 2 * majority.members.size() > values.size() && groups.size() > 1) {
    const auto odd = std::ranges::find_if(values, [&](std::int64_t value) { return value != majority.value; });
    error.rank = static_cast<int>(odd - values.begin());
  }
  return error;
}

}  // namespace lockstep::comm
