// Exit statuses of lockstepd: what a supervisor may act on.
#pragma once

namespace lockstep {

inline constexpr int kExitOk = 0;        ///< drained and left together
inline constexpr int kExitInternal = 1;  ///< our own bug, or the machine's
inline constexpr int kExitBadInput = 2;  ///< option, environment, config or model file: fix it, a restart does not help
inline constexpr int kExitPeerLost = 3;  ///< a peer died, stalled or diverged; a restart of the group helps

}  // namespace lockstep
