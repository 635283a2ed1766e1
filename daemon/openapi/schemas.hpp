// api_schemas: the JSON schemas of request and answer bodies. Those of requests follow the tables of fields in daemon/api: a field that is added there is added
// here.
#pragma once

#include <span>
#include <string_view>

namespace lockstep::daemon {

struct ApiSchema {
  std::string_view name;  ///< as routes refer to it
  std::string_view base;  ///< a schema above it whose properties it has too; "": none
  std::string_view text;  ///< a JSON object
};

[[nodiscard]] std::span<const ApiSchema> api_schemas();

}  // namespace lockstep::daemon
