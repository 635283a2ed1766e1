#include "daemon/api/request/generation_fields.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include <boost/json.hpp>
#include <fmt/format.h>

namespace lockstep::daemon {
namespace {

namespace json = boost::json;

constexpr std::int32_t kInt32Max = std::numeric_limits<std::int32_t>::max();

Failure read_max_tokens(const json::value& value, GenerationJob& job) {
  return read_integer("max_tokens", value, job.may_generate_nothing ? 0 : 1, kInt32Max, job.max_tokens.emplace());
}

Failure read_max_completion_tokens(const json::value& value, GenerationJob& job) {
  return read_integer("max_completion_tokens", value, job.may_generate_nothing ? 0 : 1, kInt32Max, job.max_tokens.emplace());
}

Failure read_min_tokens(const json::value& value, GenerationJob& job) {
  return read_integer("min_tokens", value, 0, kInt32Max, job.min_tokens);
}

Failure read_n(const json::value& value, GenerationJob& job) {
  return read_integer("n", value, 1, static_cast<std::int32_t>(kChoicesMax), job.choices_per_prompt);
}

/// OpenAI's best_of draws more texts than it returns and keeps the likeliest; only the case in which it keeps all is served.
Failure read_best_of(const json::value& value, GenerationJob& job) {
  std::int32_t best_of = 0;
  if (!read_integer("best_of", value, 1, kInt32Max, best_of) && best_of == job.choices_per_prompt) {
    return {};
  }
  return ApiError{.status = 400,
                  .message = "best_of is not supported by this server; leave it out, or send the same as n",
                  .code = "unsupported_value",
                  .param = "best_of"};
}

/// What lies between greedy and the least temperature that the engine takes is raised to the latter: 1 / temperature must stay well within float32.
float at_least_sampled(float temperature) {
  constexpr float kLeast = 0.001F;
  return temperature > 0.0F ? std::max(temperature, kLeast) : 0.0F;
}

Failure read_temperature(const json::value& value, GenerationJob& job) {
  Failure failure = read_number("temperature", value, {.low = 0, .high = 2}, job.sampling.temperature);
  job.sampling.temperature = at_least_sampled(job.sampling.temperature);
  return failure;
}

/// 0 leaves the likeliest token, as any other share does that it alone fills.
Failure read_top_p(const json::value& value, GenerationJob& job) {
  Failure failure = read_number("top_p", value, {}, job.sampling.top_p);
  job.sampling.top_p = std::max(job.sampling.top_p, std::numeric_limits<float>::min());
  return failure;
}

Failure read_top_k(const json::value& value, GenerationJob& job) {
  Failure failure = read_integer("top_k", value, -1, kInt32Max, job.sampling.top_k);
  job.sampling.top_k = std::max(job.sampling.top_k, 0);  // -1 is "all" elsewhere
  return failure;
}

Failure read_seed(const json::value& value, GenerationJob& job) {
  if (const auto number = whole_number(value)) {
    job.sampling.seed = static_cast<std::uint64_t>(*number);
  } else if (value.is_uint64()) {
    job.sampling.seed = value.get_uint64();
  } else {
    return bad_field("seed", fmt::format("seed must be an integer of at most 64 bits, not {}", described(value)));
  }
  job.seed_given = true;
  return {};
}

Failure read_logit_bias(const json::value& value, const ApiContext& context, GenerationJob& job) {
  if (!value.is_object() || value.get_object().size() > scheduler::kLogitBiasesMax) {
    return bad_field("logit_bias", fmt::format("logit_bias must be an object of at most {} token ids, each with its bias", scheduler::kLogitBiasesMax));
  }
  for (const json::key_value_pair& entry : value.get_object()) {
    model::LogitBias bias;
    const std::string_view key(entry.key().data(), entry.key().size());
    const auto [rest, error] = std::from_chars(key.data(), key.data() + key.size(), bias.token);
    if (error != std::errc() || rest != key.data() + key.size() || bias.token < 0 || bias.token >= context.vocabulary_size) {
      return bad_field("logit_bias", fmt::format("logit_bias: each key must be a token id in decimal, from 0 to {}", context.vocabulary_size - 1));
    }
    if (Failure failure = read_number("logit_bias", entry.value(), {.low = -100, .high = 100}, bias.bias)) {
      return failure;
    }
    job.sampling.logit_bias.push_back(bias);
  }
  return {};
}

Failure read_stop_string(const json::value& value, GenerationJob& job) {
  if (!value.is_string() || value.get_string().empty() || value.get_string().size() > kStopStringBytesMax) {
    return bad_field("stop", fmt::format("stop: each stop string must have 1 to {} bytes", kStopStringBytesMax));
  }
  job.stop_strings.emplace_back(text_of(value));
  return {};
}

Failure read_stop(const json::value& value, GenerationJob& job) {
  if (!value.is_array()) {
    return value.is_string() ? read_stop_string(value, job)
                             : bad_field("stop", fmt::format("stop must be a string or an array of strings, not {}", kind_name(value)));
  }
  if (value.get_array().size() > kStopStringsMax) {
    return bad_field("stop", fmt::format("stop must have at most {} strings", kStopStringsMax));
  }
  for (const json::value& entry : value.get_array()) {
    if (Failure failure = read_stop_string(entry, job)) {
      return failure;
    }
  }
  return {};
}

Failure read_stop_token_ids(const json::value& value, const ApiContext& context, GenerationJob& job) {
  if (!value.is_array() || value.get_array().size() > kStopTokensMax) {
    return bad_field("stop_token_ids", fmt::format("stop_token_ids must be an array of at most {} token ids", kStopTokensMax));
  }
  return read_token_ids("stop_token_ids", value.get_array(), context.vocabulary_size, job.stop_token_ids);
}

Failure read_stream_options(const json::value& value, GenerationJob& job) {
  if (!value.is_object()) {
    return bad_field("stream_options", fmt::format("stream_options must be an object, not {}", kind_name(value)));
  }
  if (const json::value* continuous = find_field(value.get_object(), "continuous_usage_stats"); continuous != nullptr && !is_false(*continuous)) {
    return ApiError{.status = 400,
                    .message =
                        "stream_options.continuous_usage_stats is not supported by this server; leave it out, or send false: include_usage gives the "
                        "counts at the end",
                    .code = "unsupported_value",
                    .param = "stream_options.continuous_usage_stats"};
  }
  if (const json::value* padding = find_field(value.get_object(), "include_obfuscation"); padding != nullptr && !is_false(*padding)) {
    return ApiError{.status = 400,
                    .message =
                        "stream_options.include_obfuscation is not supported by this server: the lengths of events are not hidden; leave it out, or send "
                        "false",
                    .code = "unsupported_value",
                    .param = "stream_options.include_obfuscation"};
  }
  const json::value* include_usage = find_field(value.get_object(), "include_usage");
  return include_usage == nullptr ? Failure{} : read_bool("stream_options.include_usage", *include_usage, job.include_usage);
}

/// One field that is honoured.
struct Field {
  std::string_view name;
  Failure (*read)(const json::value& value, GenerationJob& job);
};
constexpr std::array kFields{
    Field{"max_tokens", read_max_tokens},
    Field{"max_completion_tokens", read_max_completion_tokens},  // after max_tokens: it is the newer name, and wins
    Field{"min_tokens", read_min_tokens},
    Field{"n", read_n},
    Field{"best_of", read_best_of},  // after n
    Field{"temperature", read_temperature},
    Field{"top_p", read_top_p},
    Field{"top_k", read_top_k},
    Field{"min_p", [](const json::value& value, GenerationJob& job) { return read_number("min_p", value, {}, job.sampling.min_p); }},
    Field{"repetition_penalty",
          [](const json::value& value, GenerationJob& job) {
            return read_number("repetition_penalty", value, {.low = 0, .high = 10, .above_low = true}, job.sampling.repetition_penalty);
          }},
    Field{"presence_penalty", [](const json::value& value,
                                 GenerationJob& job) { return read_number("presence_penalty", value, {.low = -2, .high = 2}, job.sampling.presence_penalty); }},
    Field{"frequency_penalty",
          [](const json::value& value, GenerationJob& job) {
            return read_number("frequency_penalty", value, {.low = -2, .high = 2}, job.sampling.frequency_penalty);
          }},
    Field{"seed", read_seed},
    Field{"stop", read_stop},
    Field{"include_stop_str_in_output",
          [](const json::value& value, GenerationJob& job) { return read_bool("include_stop_str_in_output", value, job.includes_stop_string); }},
    Field{"ignore_eos", [](const json::value& value, GenerationJob& job) { return read_bool("ignore_eos", value, job.ignore_eos); }},
    Field{"stream", [](const json::value& value, GenerationJob& job) { return read_bool("stream", value, job.stream); }},
    Field{"stream_options", read_stream_options},
};

/// Those that depend on the model.
struct ModelField {
  std::string_view name;
  Failure (*read)(const json::value& value, const ApiContext& context, GenerationJob& job);
};
constexpr std::array kModelFields{ModelField{"logit_bias", read_logit_bias}, ModelField{"stop_token_ids", read_stop_token_ids}};

/// "auto" and "default" are any server's.
bool is_default_tier(const json::value& value) {
  return value.is_string() && (value.get_string() == "auto" || value.get_string() == "default");
}

constexpr std::array kUnsupportedFields{
    UnsupportedField{"store", is_false, "false: answers are not kept"},
    UnsupportedField{"service_tier", is_default_tier, "\"auto\""},
    UnsupportedField{"moderation", is_never_neutral, "null: nothing looks at texts but the model"},
    UnsupportedField{"prompt_logprobs", is_never_neutral, "null"},
    UnsupportedField{"length_penalty", is_one, "1"},
    UnsupportedField{"bad_words", is_empty, "null"},
    UnsupportedField{"allowed_token_ids", is_empty, "null"},
    UnsupportedField{"use_beam_search", is_false, "false"},
    UnsupportedField{"skip_special_tokens", is_true, "true"},
    UnsupportedField{"spaces_between_special_tokens", is_true, "true"},
    UnsupportedField{"truncate_prompt_tokens", is_never_neutral, "null"},
    UnsupportedField{"structured_outputs", is_never_neutral, "null"},
    UnsupportedField{"guided_json", is_never_neutral, "null"},
    UnsupportedField{"guided_regex", is_never_neutral, "null"},
    UnsupportedField{"guided_choice", is_never_neutral, "null"},
    UnsupportedField{"guided_grammar", is_never_neutral, "null"},
    UnsupportedField{"return_token_ids", is_false, "false"},
    UnsupportedField{"return_tokens_as_token_ids", is_false, "false"},
    UnsupportedField{"logits_processors", is_empty, "null"},
    UnsupportedField{"priority", is_zero, "0"},
    UnsupportedField{"detokenize", is_true, "true"},
    UnsupportedField{"thinking_token_budget", is_never_neutral, "null"},
    UnsupportedField{"vllm_xargs", is_empty, "null"},
    UnsupportedField{"kv_transfer_params", is_empty, "null"},
    UnsupportedField{"regex", is_empty, "null"},
    UnsupportedField{"ebnf", is_empty, "null"},
    // llama.cpp's server
    UnsupportedField{"n_predict", is_never_neutral, "null: max_tokens is the name of it"},
    UnsupportedField{"grammar", is_empty, "null"},
    UnsupportedField{"json_schema", is_empty, "null"},
    UnsupportedField{"repeat_penalty", is_one, "1: repetition_penalty, presence_penalty and frequency_penalty are there"},
    UnsupportedField{"typical_p", is_one, "1"},
    UnsupportedField{"mirostat", is_zero, "0"},
    UnsupportedField{"dry_multiplier", is_zero, "0"},
    UnsupportedField{"xtc_probability", is_zero, "0"},
    UnsupportedField{"dynatemp_range", is_zero, "0"},
    UnsupportedField{"samplers", is_empty, "null: the order of steps is fixed"},
    UnsupportedField{"n_probs", is_zero, "0: logprobs is the name of it"},
    UnsupportedField{"t_max_predict_ms", is_zero, "0"},
    UnsupportedField{"lora", is_empty, "null"},
};

void apply_defaults(const model::GenerationDefaults& defaults, scheduler::SamplingParams& sampling) {
  sampling.temperature = at_least_sampled(defaults.temperature.value_or(sampling.temperature));
  sampling.top_p = defaults.top_p.value_or(sampling.top_p);
  sampling.top_k = defaults.top_k.value_or(sampling.top_k);
  sampling.min_p = defaults.min_p.value_or(sampling.min_p);
  sampling.repetition_penalty = defaults.repetition_penalty.value_or(sampling.repetition_penalty);
}

}  // namespace

Failure read_model_name(const json::object& object, const ApiContext& context) {
  const json::value* value = find_field(object, "model");
  if (value == nullptr) {
    return {};
  }
  if (!value->is_string()) {
    return bad_field("model", fmt::format("model must be a string, not {}", kind_name(*value)));
  }
  if (std::ranges::find(context.served_names, text_of(*value)) == context.served_names.end()) {
    return ApiError{.status = 404,
                    .message = fmt::format("this server serves the model \"{}\" and not the one asked for; GET /v1/models lists it", context.served_name()),
                    .code = "model_not_found",
                    .param = "model"};
  }
  return {};
}

Failure read_generation_fields(const json::object& object, const ApiContext& context, GenerationJob& job) {
  if (Failure failure = read_model_name(object, context)) {
    return failure;
  }
  apply_defaults(context.defaults, job.sampling);
  for (const Field& field : kFields) {
    if (const json::value* value = find_field(object, field.name); value != nullptr) {
      if (Failure failure = field.read(*value, job)) {
        return failure;
      }
    }
  }
  for (const ModelField& field : kModelFields) {
    if (const json::value* value = find_field(object, field.name); value != nullptr) {
      if (Failure failure = field.read(*value, context, job)) {
        return failure;
      }
    }
  }
  if (Failure failure = refuse_unsupported(object, kUnsupportedFields)) {
    return failure;
  }
  if (job.include_usage && !job.stream) {
    return bad_field("stream_options", "stream_options needs stream to be true");
  }
  return {};
}

}  // namespace lockstep::daemon
