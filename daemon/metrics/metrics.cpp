#include "daemon/metrics/metrics.hpp"

#include <algorithm>
#include <chrono>
#include <sstream>

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "daemon/metrics/atomic_table.hpp"
#include "daemon/metrics/device/communicator_metrics.hpp"
#include "daemon/metrics/device/device_metrics.hpp"
#include "daemon/metrics/forward/forward_metrics.hpp"
#include "daemon/metrics/process_metrics.hpp"
#include "daemon/metrics/step_metrics.hpp"

namespace lockstep::daemon {
namespace {

using CounterFamily = prometheus::Family<prometheus::Counter>;
using GaugeFamily = prometheus::Family<prometheus::Gauge>;
using HistogramFamily = prometheus::Family<prometheus::Histogram>;

const prometheus::Histogram::BucketBoundaries kHttpBuckets{0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600};
constexpr std::string_view kRejections[] = {"too_large", "malformed", "timeout", "overload", "slow_reader", "foreign_host"};

/// A client chooses its method: only known ones become labels.
std::string method_label(std::string_view method) {
  constexpr std::string_view kKnown[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "none"};
  return std::ranges::find(kKnown, method) != std::end(kKnown) ? std::string(method) : "other";
}

class PrometheusMetrics final : public Metrics, private HttpObserver {
 public:
  explicit PrometheusMetrics(const MetricsOptions& options)
      : labels_{{"rank", std::to_string(options.rank)}},
        steps_table_(labels_),
        process_(labels_),
        device_(labels_),
        communicator_(labels_, options.transport),
        forward_(labels_, options.forward_timings),
        steps_(steps_table_, options.transport, options.world_size),
        world_size_(options.world_size) {
    add_infos(options);
    for (const std::string_view state : kUpStates) {
      up_state_.Add({{"state", std::string(state)}});
    }
    for (const std::string_view phase : kStartPhases) {
      start_phase_.Add({{"phase", std::string(phase)}});
    }
    for (const std::string_view reason : kRejections) {
      http_rejected_.Add({{"reason", std::string(reason)}});
    }
    for (int peer = 0; peer < options.world_size; ++peer) {
      if (peer != options.rank) {
        set_peer({.member = peer});
      }
    }
  }

  scheduler::StepObserver& step_observer() override { return steps_; }
  HttpObserver& http_observer() override { return *this; }

  void add_routes(std::span<const Route> routes) override {
    for (const Route& route : routes) {
      http_requests_.Add({{"route", std::string(route.path)}, {"method", std::string(route.method)}, {"code", "200"}});
      http_seconds_.Add({{"route", std::string(route.path)}}, kHttpBuckets);
    }
  }
  void set_up_state(std::string_view state) override {
    for (const std::string_view known : kUpStates) {
      up_state_.Add({{"state", std::string(known)}}).Set(known == state ? 1 : 0);
    }
  }
  void set_start_phase(std::string_view phase, Duration duration) override {
    start_phase_.Add({{"phase", std::string(phase)}}).Set(std::chrono::duration<double>(duration).count());
  }
  void set_peer(const comm::PeerState& peer) override {
    const prometheus::Labels labels{{"peer", std::to_string(peer.member)}};
    peer_up_.Add(labels).Set(peer.connected ? 1 : 0);
    peer_age_.Add(labels).Set(peer.heartbeat_age_seconds);
  }
  void set_drain_remaining(std::size_t requests) override { drain_remaining_.Set(static_cast<double>(requests)); }
  void count_watchdog_ping() override { watchdog_pings_.Increment(); }
  void set_device(const device::Device& device) override { device_.set_device(&device); }
  void set_communicator(const comm::Communicator* communicator) override {
    communicator_.set_communicator(communicator);
    if (communicator != nullptr) {
      show_group(std::string(communicator->transport()));
      steps_.set_agreement_transport(steps_table_, communicator->agreement_transport());
    }
  }

  [[nodiscard]] std::string text() const override {
    std::ostringstream out;
    prometheus::TextSerializer().Serialize(out, collect());
    return out.str();
  }
  [[nodiscard]] std::vector<std::string> family_names() const override {
    std::vector<std::string> names;
    for (const prometheus::MetricFamily& family : collect()) {
      names.push_back(family.name);
    }
    return names;
  }

 private:
  void on_response(const ResponseFacts& facts) override {
    http_requests_.Add({{"route", std::string(facts.route)}, {"method", method_label(facts.method)}, {"code", std::to_string(facts.status)}}).Increment();
    http_seconds_.Add({{"route", std::string(facts.route)}}, kHttpBuckets).Observe(std::chrono::duration<double>(facts.duration).count());
  }
  void on_sent(std::size_t bytes) override {
    http_sends_.Increment();
    http_sent_bytes_.Increment(static_cast<double>(bytes));
  }
  void on_rejected(std::string_view reason) override { http_rejected_.Add({{"reason", std::string(reason)}}).Increment(); }
  void on_connections(std::size_t open) override { http_connections_.Set(static_cast<double>(open)); }
  void on_inflight(std::size_t exchanges) override { http_inflight_.Set(static_cast<double>(exchanges)); }

  void add_infos(const MetricsOptions& options) {
    gauges("lockstep_build_info", "The build that runs; always 1.").Add({{"version", options.version}, {"compiler", "gcc " __VERSION__}}).Set(1);
    gauges("lockstep_config_info", "The configuration that runs; always 1.")
        .Add({{"model", options.model}, {"device", options.device}, {"load_format", options.load_format}, {"micro_batches", options.micro_batches}})
        .Set(1);
    show_group(options.transport);
  }
  /// What carries rows is known when the ranks have met.
  void show_group(const std::string& transport) {
    if (group_info_ != nullptr) {
      group_infos_.Remove(group_info_);
    }
    group_info_ = &group_infos_.Add({{"world_size", std::to_string(world_size_)}, {"epoch", "0"}, {"transport", transport}});
    group_info_->Set(1);
  }
  GaugeFamily& gauges(const std::string& name, const std::string& help) {
    return prometheus::BuildGauge().Name(name).Help(help).Labels(labels_).Register(registry_);
  }
  CounterFamily& counters(const std::string& name, const std::string& help) {
    return prometheus::BuildCounter().Name(name).Help(help).Labels(labels_).Register(registry_);
  }
  [[nodiscard]] std::vector<prometheus::MetricFamily> collect() const {
    std::vector<prometheus::MetricFamily> all = registry_.Collect();
    for (const prometheus::Collectable* source :
         {static_cast<const prometheus::Collectable*>(&steps_table_), static_cast<const prometheus::Collectable*>(&process_),
          static_cast<const prometheus::Collectable*>(&device_), static_cast<const prometheus::Collectable*>(&communicator_),
          static_cast<const prometheus::Collectable*>(&forward_)}) {
      for (prometheus::MetricFamily& family : source->Collect()) {
        all.push_back(std::move(family));
      }
    }
    return all;
  }

  LabelSet labels_;
  prometheus::Registry registry_;
  AtomicTable steps_table_;
  ProcessMetrics process_;
  DeviceMetrics device_;
  CommunicatorMetrics communicator_;
  ForwardMetrics forward_;
  StepMetrics steps_;
  int world_size_;
  GaugeFamily& group_infos_ = gauges("lockstep_group_info", "The group that this rank is in, and what carries rows between its ranks; always 1.");
  prometheus::Gauge* group_info_ = nullptr;
  GaugeFamily& up_state_ = gauges("lockstep_up_state", "1 for the state that this rank is in, else 0.");
  GaugeFamily& start_phase_ = gauges("lockstep_startup_phase_seconds", "How long each phase of the start took.");
  CounterFamily& http_requests_ = counters("lockstep_http_requests_total",
                                           "HTTP requests answered; code 499: the client left first; route none: no such path, or a head that cannot be read.");
  HistogramFamily& http_seconds_ = prometheus::BuildHistogram()
                                       .Name("lockstep_http_request_duration_seconds")
                                       .Help("From a request's last byte to the end of its answer.")
                                       .Labels(labels_)
                                       .Register(registry_);
  prometheus::Gauge& http_inflight_ = gauges("lockstep_http_inflight_requests", "HTTP requests being answered.").Add({});
  prometheus::Gauge& http_connections_ = gauges("lockstep_http_connections", "Open HTTP connections.").Add({});
  prometheus::Counter& http_sends_ = counters("lockstep_http_sends_total", "Sends to HTTP clients; what one step writes to a client is one send.").Add({});
  prometheus::Counter& http_sent_bytes_ = counters("lockstep_http_sent_bytes_total", "Bytes sent to HTTP clients, with TLS where it is used.").Add({});
  CounterFamily& http_rejected_ = counters("lockstep_http_rejected_total", "HTTP requests and connections refused before any handler saw them, or cut off.");
  GaugeFamily& peer_up_ = gauges("lockstep_peer_up", "1 while the channel to that rank is connected.");
  GaugeFamily& peer_age_ = gauges("lockstep_peer_heartbeat_age_seconds", "Time since that rank's last heartbeat.");
  prometheus::Gauge& drain_remaining_ = gauges("lockstep_drain_remaining_requests", "While draining, requests not finished yet.").Add({});
  prometheus::Counter& watchdog_pings_ = counters("lockstep_watchdog_pings_total", "Watchdog pings sent to the service manager.").Add({});
};

}  // namespace

std::unique_ptr<Metrics> Metrics::create(const MetricsOptions& options) {
  return std::make_unique<PrometheusMetrics>(options);
}

}  // namespace lockstep::daemon
