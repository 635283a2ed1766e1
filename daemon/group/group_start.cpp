#include "daemon/group/group_start.hpp"

#include <cstdint>
#include <fstream>
#include <iterator>

#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

constexpr std::size_t kSecretBytesMax = 4096;
constexpr std::size_t kNumbersPerMember = 3;

}  // namespace

Result<GroupSecret> find_group_secret(const std::filesystem::path& file, const comm::LaunchInfo& launch, const comm::EnvironmentReader& environment) {
  if (launch.world_size == 1) {
    return GroupSecret{};
  }
  if (!file.empty()) {
    std::ifstream stream(file);
    std::string text{std::istreambuf_iterator<char>(stream), {}};
    text.erase(text.find_last_not_of("\r\n") + 1);
    if (!stream.is_open() || text.empty() || text.size() > kSecretBytesMax) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("--group-secret-file: {} cannot be read, is empty or is larger than {} bytes", file.string(), kSecretBytesMax)};
    }
    return GroupSecret{.value = std::move(text)};
  }
  if (auto value = environment("LOCKSTEP_GROUP_SECRET"); value && !value->empty()) {
    return GroupSecret{.value = std::move(*value)};
  }
  if (launch.job_id.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "the ranks of a group need a common secret: set LOCKSTEP_GROUP_SECRET or --group-secret-file, or start with lockstep-run"};
  }
  return GroupSecret{.value = "job " + launch.job_id,
                     .warning =
                         "no group secret is set: it is derived from the launcher's job id, which other users of these hosts may learn; set "
                         "LOCKSTEP_GROUP_SECRET or start with lockstep-run"};
}

Result<std::vector<comm::PeerEndpoint>> exchange_endpoints(comm::Communicator& communicator, const comm::PeerEndpoint& mine, const Deadline& deadline) {
  const auto members = static_cast<std::size_t>(communicator.size());
  std::vector<std::int32_t> numbers(members * kNumbersPerMember, 0);
  const std::size_t own = static_cast<std::size_t>(communicator.rank()) * kNumbersPerMember;
  numbers[own] = static_cast<std::int32_t>(mine.address >> 16U);
  numbers[own + 1] = static_cast<std::int32_t>(mine.address & 0xFFFFU);
  numbers[own + 2] = mine.port;
  LOCKSTEP_ASSIGN_OR_RETURN(const comm::Ticket ticket, communicator.start_all_reduce(numbers, comm::ReduceOp::kSum));
  std::vector<std::int32_t> all(numbers.size());
  LOCKSTEP_RETURN_IF_ERROR(communicator.wait(ticket, all, deadline));
  std::vector<comm::PeerEndpoint> endpoints(members);
  for (std::size_t member = 0; member < members; ++member) {
    const std::size_t at = member * kNumbersPerMember;
    endpoints[member].address = (static_cast<std::uint32_t>(all[at]) << 16U) | static_cast<std::uint32_t>(all[at + 1]);
    endpoints[member].port = static_cast<std::uint16_t>(all[at + 2]);
  }
  return endpoints;
}

}  // namespace lockstep::daemon
