// make_id_tokenizer: a tokenizer for models that come without one.
#pragma once

#include <cstdint>
#include <memory>

#include "lockstep/model/tokenizer.hpp"

namespace lockstep::daemon {

/// Text is token ids in decimal, each followed by a space. For dummy weights, whose text means nothing anyway.
[[nodiscard]] std::unique_ptr<model::Tokenizer> make_id_tokenizer(std::int32_t vocabulary_size);

}  // namespace lockstep::daemon
