// AtomicTable: counters, gauges and histograms that the step thread may write: prometheus-cpp's own histogram takes a mutex. Private to this folder.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

namespace lockstep::daemon {

/// Threads  any; relaxed, as nothing is ordered by a metric.
class AtomicNumber {
 public:
  void add(double amount) { value_.fetch_add(amount, std::memory_order_relaxed); }
  void set(double value) { value_.store(value, std::memory_order_relaxed); }
  [[nodiscard]] double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

/// Fixed buckets.      Cost  a search over the bounds and two relaxed additions.      Threads  any. A reader may see a sample's bucket before its sum.
class AtomicHistogram {
 public:
  explicit AtomicHistogram(std::span<const double> bounds) : bounds_(bounds.begin(), bounds.end()), counts_(bounds.size() + 1) {}
  void observe(double value);
  void write(prometheus::ClientMetric& metric) const;

 private:
  std::vector<double> bounds_;  ///< ascending; the last bucket is everything above
  std::vector<std::atomic<std::uint64_t>> counts_;
  std::atomic<double> sum_{0};
};

using LabelSet = std::map<std::string, std::string>;

/// Ownership  owns the series, which stay where they are.      Threads  series are added before the first Collect and before any writer; Collect and set_label
/// one at a time, beside writers.
class AtomicTable final : public prometheus::Collectable {
 public:
  explicit AtomicTable(LabelSet constant_labels) : constant_labels_(std::move(constant_labels)) {}
  AtomicNumber& counter(const std::string& name, const std::string& help, const LabelSet& labels = {});
  AtomicNumber& gauge(const std::string& name, const std::string& help, const LabelSet& labels = {});
  AtomicHistogram& histogram(const std::string& name, const std::string& help, std::span<const double> bounds, const LabelSet& labels = {});
  /// Another value of a label that the series has.
  void set_label(const AtomicHistogram& series, const std::string& label, std::string_view value);
  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  struct Series {
    std::size_t family = 0;
    std::vector<prometheus::ClientMetric::Label> labels;
    AtomicNumber number;
    std::unique_ptr<AtomicHistogram> histogram;
  };
  struct Family {
    std::string name;
    std::string help;
    prometheus::MetricType type;
  };
  Series& add(const std::string& name, const std::string& help, prometheus::MetricType type, const LabelSet& labels);

  LabelSet constant_labels_;
  std::vector<Family> families_;
  std::deque<Series> series_;  ///< a deque: references to its elements stay valid
};

}  // namespace lockstep::daemon
