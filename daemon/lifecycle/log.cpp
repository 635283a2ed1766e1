#include "daemon/lifecycle/log.hpp"

#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

namespace lockstep::daemon {

std::shared_ptr<spdlog::logger> make_logger(int rank, int world_size, std::string_view level) {
  auto logger = std::make_shared<spdlog::logger>("lockstep", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_formatter(
      std::make_unique<spdlog::pattern_formatter>(fmt::format("%Y-%m-%dT%H:%M:%S.%eZ %l [rank {}/{}] %v", rank, world_size), spdlog::pattern_time_type::utc));
  logger->set_level(spdlog::level::from_str(std::string(level)));
  logger->flush_on(spdlog::level::info);  // what is logged just before _exit must be seen
  return logger;
}

}  // namespace lockstep::daemon
