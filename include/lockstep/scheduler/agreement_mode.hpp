// AgreementMode: when the ranks agree on a step.
#pragma once

#include <cstdint>

namespace lockstep::scheduler {

/// When the plan of a step is agreed on. kSync: after the step before it. kPipelined: while the step before it computes; a sequence that turns out to have
/// ended in that one has a row in this one too, whose result is dropped, and gives its slot and blocks back a step later. Equal on all ranks;
/// without effect on a rank alone.
enum class AgreementMode : std::uint8_t { kSync, kPipelined };

}  // namespace lockstep::scheduler
