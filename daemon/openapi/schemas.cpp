#include "daemon/openapi/schemas.hpp"

#include <array>

namespace lockstep::daemon {
namespace {

constexpr std::string_view kError = R"json({
  "type": "object", "required": ["error"],
  "properties": {"error": {
    "type": "object", "required": ["message", "type", "param", "code"],
    "properties": {
      "message": {"type": "string"},
      "type": {"type": "string", "enum": ["invalid_request_error", "rate_limit_error", "service_unavailable_error", "server_error"]},
      "param": {"type": ["string", "null"]},
      "code": {"type": "string"}}}}
})json";

constexpr std::string_view kHealth = R"json({
  "type": "object", "required": ["status", "rank", "state", "step", "phase", "layer", "seconds_since_progress", "lost", "not_arrived"],
  "properties": {
    "status": {"type": "string", "enum": ["ok", "loading", "draining", "stalled", "peer_lost", "faulted"]},
    "rank": {"type": "integer"},
    "state": {"type": "string"},
    "step": {"type": "integer"},
    "phase": {"type": "string"},
    "layer": {"type": "integer"},
    "seconds_since_progress": {"type": "number"},
    "lost": {"type": "array", "items": {"type": "integer"}},
    "not_arrived": {"type": "array", "items": {"type": "integer"}}}
})json";

constexpr std::string_view kChromeTrace = R"json({
  "type": "object", "required": ["displayTimeUnit", "traceEvents"],
  "properties": {"displayTimeUnit": {"const": "ms"}, "traceEvents": {"type": "array", "items": {"type": "object", "required": ["name", "ph", "pid"]}},
    "metadata": {"type": "object", "required": ["clock_of_rank", "ranks", "missing"], "properties": {
      "clock_of_rank": {"type": "integer"},
      "ranks": {"type": "array", "items": {"type": "object", "required": ["rank", "clock_ahead_us", "clock_error_us"]}},
      "missing": {"type": "array", "items": {"type": "object", "required": ["rank", "cause"]}}}}}
})json";

constexpr std::string_view kVersion = R"json({"type": "object", "required": ["version"], "properties": {"version": {"type": "string"}}})json";

constexpr std::string_view kModel = R"json({
  "type": "object", "required": ["id", "object", "created", "owned_by", "max_model_len"],
  "properties": {
    "id": {"type": "string"},
    "object": {"const": "model"},
    "created": {"type": "integer"},
    "owned_by": {"type": "string"},
    "max_model_len": {"type": "integer", "minimum": 1}}
})json";

constexpr std::string_view kModelList = R"json({
  "type": "object", "required": ["object", "data"],
  "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}}
})json";

constexpr std::string_view kOpenApi = R"json({"type": "object", "required": ["openapi", "info", "paths"]})json";

// What all requests for text share: daemon/api/request/generation_fields.cpp.
constexpr std::string_view kGenerationFields = R"json({
  "type": "object",
  "properties": {
    "model": {"type": ["string", "null"], "description": "the served model's name"},
    "max_tokens": {"type": ["integer", "null"], "minimum": 0, "maximum": 2147483647, "description": "0 only with echo"},
    "max_completion_tokens": {"type": ["integer", "null"], "minimum": 0, "maximum": 2147483647, "description": "0 only with echo"},
    "min_tokens": {"type": ["integer", "null"], "minimum": 0, "maximum": 2147483647},
    "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 128},
    "best_of": {"type": ["integer", "null"], "description": "the same as n"},
    "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
    "top_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    "top_k": {"type": ["integer", "null"], "minimum": -1, "maximum": 2147483647},
    "min_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    "repetition_penalty": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 10},
    "presence_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
    "frequency_penalty": {"type": ["number", "null"], "minimum": -2, "maximum": 2},
    "logit_bias": {"type": ["object", "null"], "propertyNames": {"pattern": "^[0-9]{1,9}$"},
                   "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
    "seed": {"type": ["integer", "null"], "minimum": -9223372036854775808, "maximum": 18446744073709551615},
    "stop": {"anyOf": [{"type": "null"}, {"type": "string", "minLength": 1},
                       {"type": "array", "maxItems": 16, "items": {"type": "string", "minLength": 1}}]},
    "include_stop_str_in_output": {"type": ["boolean", "null"]},
    "stop_token_ids": {"type": ["array", "null"], "maxItems": 64, "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}},
    "ignore_eos": {"type": ["boolean", "null"]},
    "stream": {"type": ["boolean", "null"]},
    "stream_options": {"type": ["object", "null"], "properties": {"include_usage": {"type": ["boolean", "null"]}}},
    "store": {"enum": [false, null]},
    "service_tier": {"enum": ["auto", "default", null]},
    "user": {"description": "ignored"}}
})json";

constexpr std::string_view kCompletionRequest = R"json({
  "type": "object", "required": ["prompt"],
  "properties": {
    "prompt": {"anyOf": [
      {"type": "string", "minLength": 1},
      {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}},
      {"type": "array", "minItems": 1, "maxItems": 128, "items": {"type": "string", "minLength": 1}},
      {"type": "array", "minItems": 1, "maxItems": 128,
       "items": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}}}]},
    "echo": {"type": ["boolean", "null"]},
    "response_format": {"type": ["object", "null"], "properties": {"type": {"const": "text"}}},
    "logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": 20}}
})json";

constexpr std::string_view kUsage = R"json({
  "type": "object", "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
  "properties": {
    "prompt_tokens": {"type": "integer", "minimum": 0},
    "completion_tokens": {"type": "integer", "minimum": 0},
    "total_tokens": {"type": "integer", "minimum": 0}}
})json";

constexpr std::string_view kCompletion = R"json({
  "type": "object", "required": ["id", "object", "created", "model", "choices", "usage"],
  "properties": {
    "id": {"type": "string"},
    "object": {"const": "text_completion"},
    "created": {"type": "integer"},
    "model": {"type": "string"},
    "usage": {"$ref": "#/components/schemas/Usage"},
    "choices": {"type": "array", "minItems": 1, "items": {
      "type": "object", "required": ["index", "text", "finish_reason", "logprobs"],
      "properties": {
        "index": {"type": "integer", "minimum": 0},
        "text": {"type": "string"},
        "finish_reason": {"type": "string", "enum": ["stop", "length"]},
        "logprobs": {"type": ["object", "null"], "required": ["tokens", "token_logprobs", "top_logprobs", "text_offset"],
          "properties": {
            "tokens": {"type": "array", "items": {"type": "string"}},
            "token_logprobs": {"type": "array", "items": {"type": ["number", "null"]}},
            "top_logprobs": {"type": "array", "items": {"type": ["object", "null"], "additionalProperties": {"type": "number"}}},
            "text_offset": {"type": "array", "items": {"type": "integer"}}}}}}}}
})json";

// daemon/api/chat/chat_request.cpp and chat_prompt.cpp.
constexpr std::string_view kChatCompletionRequest = R"json({
  "type": "object", "required": ["messages"],
  "properties": {
    "messages": {"type": "array", "minItems": 1, "maxItems": 4096, "items": {
      "type": "object", "required": ["role"],
      "properties": {
        "role": {"type": "string", "description": "one that the model's template knows"},
        "content": {"description": "may be absent, null or empty of an assistant only", "anyOf": [
          {"type": ["string", "null"]},
          {"type": "array", "items": {
            "type": "object", "required": ["type", "text"],
            "properties": {"type": {"const": "text"}, "text": {"type": "string"}}}}]}}}},
    "logprobs": {"type": ["boolean", "null"]},
    "top_logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": 20},
    "add_generation_prompt": {"type": ["boolean", "null"]},
    "continue_final_message": {"type": ["boolean", "null"]},
    "chat_template_kwargs": {"type": ["object", "null"]},
    "reasoning_effort": {"type": ["string", "null"]}}
})json";

constexpr std::string_view kTokenProbability = R"json({
  "type": "object", "required": ["token", "logprob", "bytes"],
  "properties": {
    "token": {"type": "string"},
    "logprob": {"type": "number"},
    "bytes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    "top_logprobs": {"type": "array", "items": {"$ref": "#/components/schemas/TokenProbability"}}}
})json";

constexpr std::string_view kChatCompletion = R"json({
  "type": "object", "required": ["id", "object", "created", "model", "choices", "usage"],
  "properties": {
    "id": {"type": "string"},
    "object": {"const": "chat.completion"},
    "created": {"type": "integer"},
    "model": {"type": "string"},
    "usage": {"$ref": "#/components/schemas/Usage"},
    "choices": {"type": "array", "minItems": 1, "items": {
      "type": "object", "required": ["index", "message", "finish_reason", "logprobs"],
      "properties": {
        "index": {"type": "integer", "minimum": 0},
        "message": {"type": "object", "required": ["role", "content"],
                    "properties": {"role": {"const": "assistant"}, "content": {"type": "string"}, "refusal": {"type": "null"}}},
        "finish_reason": {"type": "string", "enum": ["stop", "length"]},
        "logprobs": {"type": ["object", "null"], "required": ["content"],
                     "properties": {"content": {"type": "array", "items": {"$ref": "#/components/schemas/TokenProbability"}}}}}}}}
})json";

// daemon/api/tokenize/tokenize_answers.cpp.
constexpr std::string_view kTokenizeRequest = R"json({
  "type": "object",
  "oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
  "properties": {
    "model": {"type": ["string", "null"], "description": "one of the served model's names"},
    "prompt": {"type": "string"},
    "messages": {"type": "array", "minItems": 1, "maxItems": 4096, "items": {"type": "object", "required": ["role"], "properties": {"role": {"type": "string"}}}},
    "add_generation_prompt": {"type": ["boolean", "null"]},
    "continue_final_message": {"type": ["boolean", "null"]},
    "chat_template_kwargs": {"type": ["object", "null"]},
    "add_special_tokens": {"type": ["boolean", "null"]},
    "return_token_strs": {"type": ["boolean", "null"]}}
})json";

constexpr std::string_view kTokenization = R"json({
  "type": "object", "required": ["count", "max_model_len", "tokens", "token_strs"],
  "properties": {
    "count": {"type": "integer", "minimum": 0},
    "max_model_len": {"type": "integer", "minimum": 1},
    "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    "token_strs": {"type": ["array", "null"], "items": {"type": "string"}}}
})json";

constexpr std::string_view kDetokenizeRequest = R"json({
  "type": "object", "required": ["tokens"],
  "properties": {
    "model": {"type": ["string", "null"], "description": "one of the served model's names"},
    "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}}}
})json";

constexpr std::string_view kDetokenization = R"json({"type": "object", "required": ["prompt"], "properties": {"prompt": {"type": "string"}}})json";

// daemon/api/embeddings/embedding_request.cpp and embedding_body.cpp.
constexpr std::string_view kEmbeddingRequest = R"json({
  "type": "object", "required": ["input"],
  "properties": {
    "model": {"type": ["string", "null"], "description": "one of the served model's names"},
    "input": {"anyOf": [
      {"type": "string", "minLength": 1},
      {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}},
      {"type": "array", "minItems": 1, "maxItems": 2048, "items": {"type": "string", "minLength": 1}},
      {"type": "array", "minItems": 1, "maxItems": 2048,
       "items": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}}}]},
    "encoding_format": {"enum": ["float", "base64", null]},
    "dimensions": {"type": ["integer", "null"], "description": "the model's hidden size, or absent"},
    "user": {"description": "ignored"}}
})json";

constexpr std::string_view kEmbeddingList = R"json({
  "type": "object", "required": ["object", "data", "model", "usage"],
  "properties": {
    "object": {"const": "list"},
    "model": {"type": "string"},
    "usage": {"type": "object", "required": ["prompt_tokens", "total_tokens"],
              "properties": {"prompt_tokens": {"type": "integer", "minimum": 1}, "total_tokens": {"type": "integer", "minimum": 1}}},
    "data": {"type": "array", "minItems": 1, "items": {
      "type": "object", "required": ["object", "index", "embedding"],
      "properties": {
        "object": {"const": "embedding"},
        "index": {"type": "integer", "minimum": 0},
        "embedding": {"anyOf": [{"type": "array", "minItems": 1, "items": {"type": "number"}}, {"type": "string"}]}}}}}
})json";

// daemon/metrics/forward/forward_timings_body.cpp.
constexpr std::string_view kForwardTimings = R"json({
  "type": "object", "required": ["batch_sizes"],
  "properties": {"batch_sizes": {"type": "array", "items": {
    "type": "object", "required": ["batch_size", "count", "mean_ms", "p50_ms", "p99_ms", "min_ms", "max_ms"],
    "properties": {
      "batch_size": {"type": "integer", "minimum": 0},
      "count": {"type": "integer", "minimum": 1},
      "mean_ms": {"type": "number"},
      "p50_ms": {"type": "number"},
      "p99_ms": {"type": "number"},
      "min_ms": {"type": "number"},
      "max_ms": {"type": "number"}}}}}
})json";

constexpr std::array kSchemas{
    ApiSchema{"Error", "", kError},
    ApiSchema{"Health", "", kHealth},
    ApiSchema{"Version", "", kVersion},
    ApiSchema{"ChromeTrace", "", kChromeTrace},
    ApiSchema{"Model", "", kModel},
    ApiSchema{"ModelList", "", kModelList},
    ApiSchema{"OpenApi", "", kOpenApi},
    ApiSchema{"GenerationFields", "", kGenerationFields},
    ApiSchema{"CompletionRequest", "GenerationFields", kCompletionRequest},
    ApiSchema{"Usage", "", kUsage},
    ApiSchema{"Completion", "", kCompletion},
    ApiSchema{"ChatCompletionRequest", "GenerationFields", kChatCompletionRequest},
    ApiSchema{"TokenProbability", "", kTokenProbability},
    ApiSchema{"ChatCompletion", "", kChatCompletion},
    ApiSchema{"TokenizeRequest", "", kTokenizeRequest},
    ApiSchema{"Tokenization", "", kTokenization},
    ApiSchema{"DetokenizeRequest", "", kDetokenizeRequest},
    ApiSchema{"Detokenization", "", kDetokenization},
    ApiSchema{"EmbeddingRequest", "", kEmbeddingRequest},
    ApiSchema{"EmbeddingList", "", kEmbeddingList},
    ApiSchema{"ForwardTimings", "", kForwardTimings},
};

}  // namespace

std::span<const ApiSchema> api_schemas() {
  return kSchemas;
}

}  // namespace lockstep::daemon
