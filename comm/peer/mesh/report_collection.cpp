#include "comm/peer/mesh/report_collection.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace lockstep::comm::peer {

ReportCollection::ReportCollection(std::uint32_t number, const GroupView& view, std::optional<std::int32_t> only)
    : number_(number), reports_(view.members.size()), asked_(view.members.size()) {
  for (int member = 0; member < view.size(); ++member) {
    reports_[static_cast<std::size_t>(member)].member = member;
    asked_[static_cast<std::size_t>(member)] = member != view.my_index && (!only || *only == member);
  }
  open_ = asked_;
  open_count_ = static_cast<int>(std::ranges::count(asked_, true));
}

void ReportCollection::on_part(int member, const ReportPartFrame& part) {
  const auto index = static_cast<std::size_t>(member);
  if (part.number != number_ || !open_[index]) {
    return;
  }
  std::vector<std::byte>& bytes = reports_[index].bytes;
  if (part.content.size() > kReportBytesMax - bytes.size()) {
    close(member, Error{ErrorCode::kResourceExhausted, fmt::format("its report is larger than {} bytes", kReportBytesMax)});
    return;
  }
  bytes.insert(bytes.end(), part.content.begin(), part.content.end());
  if (part.last) {
    close(member, bytes.empty() ? Status(Error{ErrorCode::kUnsupported, "it has nothing to report yet, or too many ask it"}) : Status());
  }
}

void ReportCollection::give_up(int member, const Error& error) {
  if (open_[static_cast<std::size_t>(member)]) {
    close(member, error);
  }
}

void ReportCollection::give_up_all(const Error& error) {
  for (std::size_t index = 0; index < open_.size(); ++index) {
    give_up(static_cast<int>(index), error);
  }
}

std::vector<PeerReport> ReportCollection::take() {
  std::erase_if(reports_, [this](const PeerReport& report) { return !asked_[static_cast<std::size_t>(report.member)]; });
  return std::move(reports_);
}

void ReportCollection::close(int member, Status status) {
  PeerReport& report = reports_[static_cast<std::size_t>(member)];
  report.status = std::move(status);
  if (!report.status) {
    report.bytes = {};
  }
  open_[static_cast<std::size_t>(member)] = false;
  --open_count_;
}

}  // namespace lockstep::comm::peer
