#include "daemon/http/listen/socket_activation.hpp"

#include <charconv>
#include <fcntl.h>
#include <optional>

#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

constexpr int kFirstDescriptor = 3;
constexpr int kDescriptorsMax = 16;

std::optional<int> read_number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

}  // namespace

Result<InheritedSockets> find_inherited_sockets(const comm::EnvironmentReader& environment, const comm::LaunchInfo& launch, int process_id) {
  InheritedSockets result;
  const std::optional<std::string> count_text = environment("LISTEN_FDS");
  if (!count_text) {
    return result;
  }
  if (launch.launcher != "none") {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format(
            "LISTEN_FDS is set, but ranks that {} starts do not get the service manager's sockets: start lockstepd without it, or remove the socket unit and "
            "let each rank open --port itself",
            launch.launcher)};
  }
  const std::optional<int> count = read_number(*count_text);
  if (!count || *count < 1 || *count > kDescriptorsMax) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("LISTEN_FDS: \"{}\" is not a number from 1 to {}", *count_text, kDescriptorsMax)};
  }
  const std::optional<std::string> owner = environment("LISTEN_PID");
  if (!owner || read_number(*owner) != process_id) {
    result.warning = fmt::format("LISTEN_FDS is set for process {} and this is {}: its sockets are not used",
                                 owner ? *owner : std::string("(LISTEN_PID is not set)"), process_id);
    return result;
  }
  for (int i = 0; i < *count; ++i) {
    const int descriptor = kFirstDescriptor + i;
    if (::fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("LISTEN_FDS announces {} sockets, but descriptor {} is not open", *count, descriptor)};
    }
    result.descriptors.push_back(descriptor);
  }
  return result;
}

}  // namespace lockstep::daemon
