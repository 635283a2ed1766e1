// accepts_gzip: what a client says of the codings that it understands.
#pragma once

#include <string_view>

namespace lockstep::daemon {

/// Whether gzip may be used, and is not worse than leaving the body as it is, by the value of Accept-Encoding with its q values ("": it may not).
/// What cannot be understood counts as not accepted.      Source  RFC 9110, section 12.5.3.
[[nodiscard]] bool accepts_gzip(std::string_view accept_encoding);

}  // namespace lockstep::daemon
