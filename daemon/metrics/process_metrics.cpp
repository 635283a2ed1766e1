#include "daemon/metrics/process_metrics.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <sys/resource.h>
#include <unistd.h>

namespace lockstep::daemon {
namespace {

/// Fields of /proc/self/stat, numbered as in proc(5).
struct ProcessStat {
  double cpu_ticks = 0;    // 14 + 15
  double start_ticks = 0;  // 22, since boot
  double virtual_bytes = 0;
  double resident_pages = 0;
};

ProcessStat read_stat() {
  std::ifstream file("/proc/self/stat");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  ProcessStat result;
  const std::size_t name_end = text.rfind(')');  // the name, field 2, may hold anything
  if (name_end == std::string::npos) {
    return result;
  }
  std::istringstream fields(text.substr(name_end + 1));
  std::string field;
  for (int number = 3; number <= 24 && fields >> field; ++number) {
    const double value = number == 3 ? 0 : std::strtod(field.c_str(), nullptr);  // 3 is a letter
    if (number == 14 || number == 15) {
      result.cpu_ticks += value;
    } else if (number == 22) {
      result.start_ticks = value;
    } else if (number == 23) {
      result.virtual_bytes = value;
    } else if (number == 24) {
      result.resident_pages = value;
    }
  }
  return result;
}

double boot_time() {
  std::ifstream file("/proc/stat");
  std::string word;
  while (file >> word) {
    if (word == "btime") {
      double value = 0;
      file >> value;
      return value;
    }
  }
  return 0;
}

double open_file_count() {
  std::error_code error;
  const std::filesystem::directory_iterator files("/proc/self/fd", error);
  return error ? 0 : static_cast<double>(std::distance(begin(files), end(files)) - 1);  // one is the listing's own
}

double file_limit() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<double>(limit.rlim_cur);
}

}  // namespace

std::vector<prometheus::MetricFamily> ProcessMetrics::Collect() const {
  std::vector<prometheus::MetricFamily> result;
  const auto add = [&](const char* name, const char* help, prometheus::MetricType type, double value) {
    prometheus::MetricFamily& family = result.emplace_back();
    family.name = name;
    family.help = help;
    family.type = type;
    prometheus::ClientMetric& metric = family.metric.emplace_back();
    for (const auto& [label, label_value] : labels_) {
      metric.label.push_back({label, label_value});
    }
    (type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  };
  const ProcessStat stat = read_stat();
  const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
  using Type = prometheus::MetricType;
  add("process_cpu_seconds_total", "CPU time used, user and system.", Type::Counter, stat.cpu_ticks / ticks);
  add("process_start_time_seconds", "Start of the process, in seconds since 1970.", Type::Gauge, boot_time() + stat.start_ticks / ticks);
  add("process_virtual_memory_bytes", "Virtual memory.", Type::Gauge, stat.virtual_bytes);
  add("process_resident_memory_bytes", "Resident memory.", Type::Gauge, stat.resident_pages * static_cast<double>(::sysconf(_SC_PAGESIZE)));
  add("process_open_fds", "Open file descriptors.", Type::Gauge, open_file_count());
  add("process_max_fds", "Limit of open file descriptors.", Type::Gauge, file_limit());
  return result;
}

}  // namespace lockstep::daemon
