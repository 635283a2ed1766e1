// Starts the hub of the communicators whose unique ids this process makes.
#pragma once

#include <string>

namespace nccl_sim {

/// Where ranks find it, the name of an abstract Unix socket; the first call starts it. It ends when this process and all ranks have.      Threads  any.
[[nodiscard]] const std::string& hub_address();

}  // namespace nccl_sim
