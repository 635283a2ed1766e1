#include "comm/peer/mesh/report_collection.hpp"

#include <utility>

#include <fmt/format.h>

namespace lockstep::comm::peer {

ReportCollection::ReportCollection(std::uint32_t number, const GroupView& view)
    : number_(number), reports_(view.members.size()), open_(view.members.size(), true), own_(view.my_index), open_count_(view.size() - 1) {
  for (int member = 0; member < view.size(); ++member) {
    reports_[static_cast<std::size_t>(member)].member = member;
  }
  open_[static_cast<std::size_t>(own_)] = false;
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
  reports_.erase(reports_.begin() + own_);
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
