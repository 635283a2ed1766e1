#include "daemon/metrics/atomic_table.hpp"

#include <algorithm>
#include <initializer_list>
#include <limits>

#include "lockstep/core/check.hpp"

namespace lockstep::daemon {

void AtomicHistogram::observe(double value) {
  const auto bucket = static_cast<std::size_t>(std::ranges::lower_bound(bounds_, value) - bounds_.begin());
  counts_[bucket].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

void AtomicHistogram::write(prometheus::ClientMetric& metric) const {
  std::uint64_t cumulative = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    cumulative += counts_[i].load(std::memory_order_relaxed);
    prometheus::ClientMetric::Bucket bucket;
    bucket.cumulative_count = cumulative;
    bucket.upper_bound = i < bounds_.size() ? bounds_[i] : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back(bucket);
  }
  metric.histogram.sample_count = cumulative;  // read once, so that it equals the last bucket
  metric.histogram.sample_sum = sum_.load(std::memory_order_relaxed);
}

AtomicTable::Series& AtomicTable::add(const std::string& name, const std::string& help, prometheus::MetricType type, const LabelSet& labels) {
  auto family = std::ranges::find(families_, name, &Family::name);
  if (family == families_.end()) {
    family = families_.insert(families_.end(), Family{name, help, type});
  }
  Series& series = series_.emplace_back();
  series.family = static_cast<std::size_t>(family - families_.begin());
  for (const LabelSet* set : std::initializer_list<const LabelSet*>{&constant_labels_, &labels}) {
    for (const auto& [label, value] : *set) {
      series.labels.push_back({label, value});
    }
  }
  return series;
}

AtomicNumber& AtomicTable::counter(const std::string& name, const std::string& help, const LabelSet& labels) {
  return add(name, help, prometheus::MetricType::Counter, labels).number;
}

AtomicNumber& AtomicTable::gauge(const std::string& name, const std::string& help, const LabelSet& labels) {
  return add(name, help, prometheus::MetricType::Gauge, labels).number;
}

AtomicHistogram& AtomicTable::histogram(const std::string& name, const std::string& help, std::span<const double> bounds, const LabelSet& labels) {
  Series& series = add(name, help, prometheus::MetricType::Histogram, labels);
  series.histogram = std::make_unique<AtomicHistogram>(bounds);
  return *series.histogram;
}

void AtomicTable::set_label(const AtomicHistogram& series, const std::string& label, std::string_view value) {
  const auto found = std::ranges::find(series_, &series, [](const Series& each) { return static_cast<const AtomicHistogram*>(each.histogram.get()); });
  LOCKSTEP_CHECK(found != series_.end(), "label {} of a histogram that is not in the table", label);
  const auto named = std::ranges::find(found->labels, label, &prometheus::ClientMetric::Label::name);
  LOCKSTEP_CHECK(named != found->labels.end(), "{} has no label {}", families_[found->family].name, label);
  named->value = value;
}

std::vector<prometheus::MetricFamily> AtomicTable::Collect() const {
  std::vector<prometheus::MetricFamily> result;
  for (const Family& family : families_) {
    result.push_back({family.name, family.help, family.type, {}});
  }
  for (const Series& series : series_) {
    prometheus::MetricFamily& family = result[series.family];
    prometheus::ClientMetric& metric = family.metric.emplace_back();
    metric.label = series.labels;
    if (series.histogram) {
      series.histogram->write(metric);
    } else if (family.type == prometheus::MetricType::Counter) {
      metric.counter.value = series.number.value();
    } else {
      metric.gauge.value = series.number.value();
    }
  }
  return result;
}

}  // namespace lockstep::daemon
