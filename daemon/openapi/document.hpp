// openapi_document: what GET /openapi.json says, made from the table of routes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "daemon/http/router.hpp"

namespace lockstep::daemon {

struct OpenApiOptions {
  std::string version;     ///< of lockstep
  bool needs_key = false;  ///< API keys are set
};

/// OpenAPI 3.1, as JSON. Each line of the table is an operation, with every status that it can be answered with: its own, and those of the front door.
/// A schema that a route names and nobody wrote is a bug of ours and ends the process.
[[nodiscard]] std::string openapi_document(std::span<const Route> routes, const OpenApiOptions& options);

/// The statuses that the front door itself may give on any route, ascending.
[[nodiscard]] std::vector<int> front_door_statuses(Access access, bool needs_key);

}  // namespace lockstep::daemon
