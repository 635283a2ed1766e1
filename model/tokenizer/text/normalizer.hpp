// Unicode normalization form C.
#pragma once

#include <string>
#include <string_view>

namespace lockstep::model {

/// `text`, which must be valid UTF-8, in normalization form C.      Cost  O(n log n) for any text; nothing but a scan where all is below U+0300.
/// Differs from the reference's only for marks that Unicode 10 or a later one added, out of canonical order: its tables are older than utf8proc's.
/// Source  Unicode Standard Annex 15; character data of utf8proc.
[[nodiscard]] std::string normalize_nfc(std::string_view text);

}  // namespace lockstep::model
