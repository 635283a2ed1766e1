#include "lockstep/comm/peer_channel.hpp"

#include <utility>

#include <fmt/format.h>

#include "comm/peer/mesh/mesh.hpp"

namespace lockstep::comm {

namespace peer {
namespace {

class TcpPeerChannel final : public PeerChannel {
 public:
  explicit TcpPeerChannel(std::shared_ptr<Mesh> mesh) : mesh_(std::move(mesh)) {}
  ~TcpPeerChannel() override { mesh_->shut_down(); }
  TcpPeerChannel(const TcpPeerChannel&) = delete;
  TcpPeerChannel& operator=(const TcpPeerChannel&) = delete;

  [[nodiscard]] PeerEndpoint endpoint() const override { return mesh_->endpoint(); }
  [[nodiscard]] Status connect(const std::vector<PeerEndpoint>& endpoints, const Deadline& deadline) override { return mesh_->connect(endpoints, deadline); }
  void set_wake_receiver(WakeReceiver* receiver) override { mesh_->set_wake_receiver(receiver); }
  void broadcast_wake(std::int32_t epoch, std::int64_t step) override { mesh_->broadcast_wake({.epoch = epoch, .step = step}); }
  void report_failure(const Error& error) override { mesh_->report_failure(error); }
  void say_goodbye() override { mesh_->say_goodbye(); }
  void set_report_source(ReportSource* source) override { mesh_->set_report_source(source); }
  void ask_reports(std::int64_t argument, Duration limit, std::function<void(std::vector<PeerReport>)> done, std::optional<std::int32_t> only) override {
    mesh_->ask_reports(argument, limit, std::move(done), only);
  }
  [[nodiscard]] Status flush(const Deadline& deadline) override { return mesh_->flush(deadline); }
  [[nodiscard]] Status failure() const override { return mesh_->detector().failure(); }
  [[nodiscard]] TimePoint last_progress() const override { return mesh_->detector().last_progress(); }
  [[nodiscard]] std::vector<PeerState> states() const override { return mesh_->detector().states(SteadyClock::instance().now()); }

 private:
  std::shared_ptr<Mesh> mesh_;  ///< shared with the handlers that wait in the io_context
};

}  // namespace
}  // namespace peer

Result<std::unique_ptr<PeerChannel>> PeerChannel::create(boost::asio::io_context& io, const GroupView& view, const StepProgress& progress,
                                                         PeerChannelOptions options) {
  if (options.heartbeat_interval <= Duration::zero() || options.stall_timeout < 2 * options.heartbeat_interval) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("stall timeout {:.3f} s with heartbeats every {:.3f} s: expected at least two heartbeats in it",
                             std::chrono::duration<double>(options.stall_timeout).count(), std::chrono::duration<double>(options.heartbeat_interval).count())};
  }
  if (view.size() > 1 && options.secret.empty()) {
    return Error{ErrorCode::kInvalidArgument, "the group secret is empty: set LOCKSTEP_GROUP_SECRET to the same random text on all members"};
  }
  const auto mesh = std::make_shared<peer::Mesh>(io, view, progress, std::move(options));
  if (view.size() > 1) {
    LOCKSTEP_RETURN_IF_ERROR(mesh->listen());
    mesh->start();
  }
  return std::unique_ptr<PeerChannel>(std::make_unique<peer::TcpPeerChannel>(mesh));
}

}  // namespace lockstep::comm
