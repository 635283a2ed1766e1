#include <utility>

#include <fmt/format.h>

#include "comm/peer/mesh/mesh.hpp"

namespace lockstep::comm::peer {

void Mesh::set_report_source(ReportSource* source) {
  post([source](Mesh& mesh) { mesh.report_source_ = source; });
}

void Mesh::ask_reports(std::int64_t argument, Duration limit, std::function<void(std::vector<PeerReport>)> done, std::optional<std::int32_t> only) {
  post([argument, limit, done = std::move(done), only](Mesh& mesh) { mesh.ask(argument, limit, done, only); });
}

void Mesh::ask(std::int64_t argument, Duration limit, std::function<void(std::vector<PeerReport>)> done, std::optional<std::int32_t> only) {
  ReportCollection collection(++questions_, view_, only);
  if (reports_) {
    collection.give_up_all({ErrorCode::kResourceExhausted, "another question to the peers is open"});
    done(with_clocks(collection.take()));
    return;
  }
  reports_ = std::move(collection);
  reports_done_ = std::move(done);
  for (int member = 0; member < view_.size(); ++member) {
    if (only && *only != member) {
      continue;
    }
    if (detector_.connected(member)) {
      connections_[static_cast<std::size_t>(member)]->send(ReportRequestFrame{.number = questions_, .argument = argument});
    } else {
      reports_->give_up(member, {ErrorCode::kPeerLost, "it is not connected"});
    }
  }
  reports_timer_.expires_after(limit);
  reports_timer_.async_wait([self = shared_from_this(), number = questions_, limit](const boost::system::error_code& cancelled) {
    if (!cancelled && !self->over_ && self->reports_ && self->reports_->number() == number) {
      self->reports_->give_up_all({ErrorCode::kTimeout, fmt::format("its report did not come within {:.1f} s", std::chrono::duration<double>(limit).count())});
      self->finish_reports_when_complete();
    }
  });
  finish_reports_when_complete();
}

void Mesh::finish_reports_when_complete() {
  if (!reports_ || !reports_->complete()) {
    return;
  }
  reports_timer_.cancel();
  std::vector<PeerReport> reports = with_clocks(reports_->take());
  reports_.reset();
  // Last, as it may ask again.
  std::exchange(reports_done_, nullptr)(std::move(reports));
}

std::vector<PeerReport> Mesh::with_clocks(std::vector<PeerReport> reports) const {
  for (PeerReport& report : reports) {
    report.clock = clocks_[static_cast<std::size_t>(report.member)].estimate();
  }
  return reports;
}

void Mesh::on_report_request(int member, const ReportRequestFrame& request) {
  // Weak: who makes the report may be at it when the mesh goes.
  auto done = [weak = weak_from_this(), member, number = request.number](std::vector<std::byte> bytes) {
    if (const auto mesh = weak.lock()) {
      mesh->post([member, number, bytes = std::move(bytes)](Mesh& self) { self.connections_[static_cast<std::size_t>(member)]->send_report(number, bytes); });
    }
  };
  if (report_source_ != nullptr) {
    report_source_->make_report(request.argument, std::move(done));
  } else {
    done({});
  }
}

}  // namespace lockstep::comm::peer
