#include "daemon/options/option_table.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cctype>
#include <charconv>
#include <limits>
#include <utility>

#include "lockstep/comm/communicator_choice.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::daemon {
namespace {

using Options = DaemonOptions;

constexpr std::array<std::pair<std::string_view, LoadFormat>, 3> kLoadFormats{
    {{"auto", LoadFormat::kAuto}, {"safetensors", LoadFormat::kSafetensors}, {"dummy", LoadFormat::kDummy}}};
constexpr std::array<std::pair<std::string_view, AccessLogLevel>, 3> kAccessLogLevels{
    {{"off", AccessLogLevel::kOff}, {"requests", AccessLogLevel::kRequests}, {"all", AccessLogLevel::kAll}}};
constexpr std::array<std::pair<std::string_view, scheduler::Pooling>, 2> kPoolings{{{"last", scheduler::Pooling::kLast}, {"mean", scheduler::Pooling::kMean}}};
constexpr std::array<std::pair<std::string_view, scheduler::AgreementMode>, 2> kAgreementModes{
    {{"sync", scheduler::AgreementMode::kSync}, {"pipelined", scheduler::AgreementMode::kPipelined}}};
constexpr std::array<std::pair<std::string_view, comm::CombineMode>, 2> kCombineModes{
    {{"per-expert", comm::CombineMode::kPerExpert}, {"per-rank", comm::CombineMode::kPerRank}}};
constexpr std::array<std::pair<std::string_view, std::optional<GraphMode>>, 4> kGraphModes{
    {{"auto", std::nullopt}, {"none", GraphMode::kNone}, {"piecewise", GraphMode::kPiecewise}, {"full", GraphMode::kFull}}};
constexpr std::array<std::pair<std::string_view, std::int32_t>, 4> kMicroBatches{{{"1", 1}, {"2", 2}, {"4", 4}, {"auto", kMicroBatchesAuto}}};
constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kLogLevels{
    {{"trace", "trace"}, {"debug", "debug"}, {"info", "info"}, {"warning", "warning"}, {"error", "error"}}};

constexpr std::array<std::pair<std::string_view, bool>, 2> kGenerationConfigs{{{"auto", true}, {"none", false}}};
constexpr std::array<std::pair<std::string_view, SpecialTokensInMessages>, 2> kSpecialTokens{
    {{"accept", SpecialTokensInMessages::kAccept}, {"refuse", SpecialTokensInMessages::kRefuse}}};

constexpr const char* kFolder = "the path of a folder";
constexpr const char* kFile = "the path of a file";
constexpr const char* kKeys = "API keys, separated by commas";
constexpr const char* kHostNames = "host names such as server.example, separated by commas";
constexpr const char* kOrigins = "origins such as https://example.org, separated by commas";
constexpr const char* kHostPort = "an address and a port, such as 127.0.0.1:9090";
constexpr const char* kNames = "one or several names";
constexpr const char* kAddress = "an address of this machine";

constexpr OptionKind unsigned_seed() {
  return {.placeholder = "N",
          .expected = [] { return std::string("a whole number from 0 to 18446744073709551615"); },
          .apply =
              [](std::string_view text, DaemonOptions& options) {
                const auto value = read_unsigned(text);
                options.dummy_seed = value.value_or(0);
                return value.has_value();
              },
          .nearest = [](std::string_view text) { return nearest_integer(text, 0, std::numeric_limits<std::uint64_t>::max()); }};
}

std::vector<std::string> device_names() {
  const auto names = device::device_names();
  return {names.begin(), names.end()};
}

constexpr OptionKind device_name() {
  return {.placeholder = "NAME",
          .expected = [] { return "a device: " + any_of(device_names()); },
          .apply =
              [](std::string_view text, DaemonOptions& options) {
                options.device = text;
                return std::ranges::find(device::device_names(), text) != device::device_names().end();
              },
          .choices = device_names};
}

std::vector<std::string> communicator_names() {
  const auto names = comm::communicator_names();
  return {names.begin(), names.end()};
}

constexpr OptionKind communicator_name() {
  return {.placeholder = "NAME",
          .expected = [] { return "a communicator: " + any_of(communicator_names()); },
          .apply =
              [](std::string_view text, DaemonOptions& options) {
                options.communicator = text;
                return std::ranges::find(comm::communicator_names(), text) != comm::communicator_names().end();
              },
          .choices = communicator_names};
}

/// An IPv4 address, or a network with its bits.
bool is_listen_address(const std::string& text) {
  constexpr int kBitsMax = 32;
  const std::size_t slash = text.find('/');
  in_addr address{};
  if (::inet_pton(AF_INET, text.substr(0, slash).c_str(), &address) != 1) {
    return false;
  }
  if (slash == std::string::npos) {
    return true;
  }
  int bits = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed_to, error] = std::from_chars(text.data() + slash + 1, end, bits);
  return error == std::errc{} && parsed_to == end && bits >= 1 && bits <= kBitsMax;
}

constexpr OptionKind listen_address() {
  return {.placeholder = "ADDRESS",
          .expected = [] { return std::string("an IPv4 address of this machine, or a network such as 10.0.0.0/24"); },
          .apply =
              [](std::string_view text, DaemonOptions& options) {
                options.peer_bind = text;
                return is_listen_address(options.peer_bind);
              }};
}

constexpr std::int64_t kRanksMax = 4096;

constexpr const char* kModel = "Model";
constexpr const char* kHttp = "HTTP";
constexpr const char* kBatching = "Batching and memory, on each rank";
constexpr const char* kGroup = "Group";
constexpr const char* kProcess = "Process";
constexpr const char* kPreflight = "Instead of serving";

// clang-format off: one line is one option
constexpr std::array kLines{
    OptionLine{kModel, "model", text_of<&Options::model, kFolder>("PATH"), "(the embedded model)", "Folder of a Hugging Face model",
               "Folder of a Hugging Face model: `config.json`, `*.safetensors`, `tokenizer.json`"},
    OptionLine{kModel, "served-model-name", list_of<&Options::served_model_names, kNames>("NAME"), "(the folder's name)",
               "Names of the model in the API; answers show the first, requests may use any",
               "Names of the model in the API, one or several: answers show the first, requests may use any; another one gets 404"},
    OptionLine{kModel, "chat-template", text_of<&Options::chat_template_file, kFile>("PATH"), "(the model's)",
               "Jinja file that renders conversations instead of the model's own",
               "Jinja file that renders conversations instead of the model's own `chat_template.jinja` or `chat_template` in `tokenizer_config.json`"},
    OptionLine{kModel, "generation-config", one_of<&Options::generation_config, kGenerationConfigs>(), "auto",
               "Defaults of sampling: those of the model's generation_config.json, or none, which is OpenAI's",
               "Defaults of `temperature`, `top_p`, `top_k`, `min_p`, `repetition_penalty` and, for chats, `max_tokens`: `auto` takes what the model's "
               "`generation_config.json` says (and its `max_new_tokens`), `none` OpenAI's. Which tokens end a text comes from the file with both"},
    OptionLine{kModel, "load-format", one_of<&Options::load_format, kLoadFormats>(), "auto", "Where weights come from; dummy makes them from --dummy-seed",
               "`auto` and `safetensors` read the files; `dummy` makes weights from a seed, for tests and benchmarks. A dummy model without `tokenizer.json`"
               " takes and gives token ids as text: `\"17 4 99\"`"},
    OptionLine{kModel, "dummy-seed", unsigned_seed(), "0", "Seed of --load-format dummy", "Seed of `--load-format dummy`"},
    OptionLine{kModel, "embedding-pooling", one_of<&Options::embedding_pooling, kPoolings>(), "last",
               "Which hidden states make the embedding of a text: its last token's, or the mean of all",
               "Which hidden states make the embedding of a text: its `last` token's, or the `mean` of all; the same on all ranks"},
    OptionLine{kModel, "device", device_name(), "cpu", "Where to compute; auto takes a GPU where one is usable",
               "Where to compute: `cpu`, `cuda`, or `auto`, which takes a GPU where one is usable and else says in the log why not: see [gpu](gpu.md)"},
    OptionLine{
        kModel, "batch-invariant", on_or_off<&Options::batch_invariant>(), "false",
        "On a GPU: the same request gives the same bits whatever else is computed, at some cost of speed; on a CPU it always does",
        "On a GPU: the same request gives the same bits alone, in a batch, chunked and at every number of ranks, by one matrix product algorithm for all "
        "batch sizes, which costs speed: [gpu](gpu.md). On a CPU it is always so. The same on all ranks"},

    OptionLine{kHttp, "host", text_of<&Options::host, kAddress>("ADDRESS"), "127.0.0.1", "Address that HTTP listens on",
               "Address to listen on. Before you open it to a network, set keys and a certificate: [security](security.md)"},
    OptionLine{kHttp, "port", port_number<&Options::port>(), "8000", "Port of this host's first rank; the others count up from it. 0: any free one",
               "Port of the host's first rank. Rank *i* of the host listens on port + *i*. 0: any free one, which the log names"},
    OptionLine{kHttp, "shared-port", port_number<&Options::shared_port>(), "0", "One more port on which all ranks of this host accept. 0: none",
               "One more port, on which all ranks of the host accept; the kernel deals out connections. 0: none"},
    OptionLine{kHttp, "unix-socket", text_of<&Options::unix_socket, kFile>("PATH"), "(none)",
               "Unix socket to listen on instead of --port; the host's other ranks add .1, .2",
               "Unix socket to listen on instead of `--port`, always without TLS. The host's first rank takes the path, the others add `.1`, `.2`. Owner and"
               " group may connect; it is removed at the end, and one that a dead process left is replaced"},
    OptionLine{kHttp, "metrics-address", text_of<&Options::metrics_address, kHostPort>("HOST:PORT"), "(none)",
               "Serve /metrics and the probes there, and /metrics only there",
               "`HOST:PORT`: serve `/metrics` and the probes there, without TLS and keys, and `/metrics` only there. Rank *i* of the host takes port + *i*"},
    OptionLine{kHttp, "api-key", secret_list_of<&Options::api_keys, kKeys>("KEY"), "(none)", "Keys that callers need; better in LOCKSTEP_API_KEY or a file",
               "Keys, separated by commas or by repeating the option. With any key set, whatever is no probe and not `/metrics` needs one. Arguments are "
               "visible to other users: better `LOCKSTEP_API_KEY` or a file"},
    OptionLine{kHttp, "api-key-file", text_of<&Options::api_key_file, kFile>("PATH"), "(none)", "File with more such keys, one a line; SIGUSR2 reads it again",
               "File with more keys, one a line; lines that begin with `#` do not count. `SIGUSR2` reads it again"},
    OptionLine{kHttp, "tls-cert", text_of<&Options::tls_certificate, kFile>("PATH"), "(none)",
               "PEM file with certificate and chain: HTTPS; SIGUSR2 reads it again",
               "PEM file with the certificate, followed by what signed it: HTTPS instead of HTTP, TLS 1.2 and newer. `SIGUSR2` reads it again"},
    OptionLine{kHttp, "tls-key", text_of<&Options::tls_key, kFile>("PATH"), "(none)", "PEM file with the certificate's private key",
               "PEM file with the certificate's private key, without a passphrase"},
    OptionLine{kHttp, "cors-allow-origin", list_of<&Options::cors_origins, kOrigins>("ORIGIN"), "(none)",
               "Origins whose pages may use the API from a browser; * is all",
               "Origins whose pages may use the API from a browser, such as `https://example.org`; `*` is all"},
    OptionLine{
        kHttp, "allowed-host", list_of<&Options::allowed_hosts, kHostNames>("NAME"), "(none)",
        "Names under which clients may address a server on loopback without keys, beside localhost; * is all",
        "Names that requests to a server on loopback without keys and TLS may have as their `Host`, beside addresses, `localhost` and names without a dot; "
        "`*` is all. Others get 403: [security](security.md)"},
    OptionLine{kHttp, "special-tokens-in-messages", one_of<&Options::special_tokens_in_messages, kSpecialTokens>(), "accept",
               "Whether a chat message may have the text of a special token, which then acts as that token",
               "Whether a chat message may have the text of one of the model's special tokens, which then acts as that token; `refuse` answers 400, see "
               "[security](security.md)"},
    OptionLine{kHttp, "request-timeout", duration<&Options::request_timeout>(), "(none)", "How long an answer may take; then it ends with an error",
               "How long an answer may take from the request's last byte to its own; then it ends with 504, a stream with an error event"},
    OptionLine{kHttp, "access-log", one_of<&Options::access_log, kAccessLogLevels>(), "requests",
               "A line for each request: off, all but probes and scrapes, all",
               "A log line for each request, at level `info`: `off`, `requests` (all but probes and scrapes that went well), `all`"},

    OptionLine{kBatching, "max-num-seqs", count_from<&Options::max_num_seqs, 1>(), "64", "Requests computed in one step"},
    OptionLine{kBatching, "max-num-batched-tokens", count_from<&Options::max_num_batched_tokens, 1>(), "1024", "Tokens computed in one step",
               "Tokens computed in one step; longer prompts are computed in several"},
    OptionLine{kBatching, "max-pending", count_from<&Options::max_pending, 1>(), "1024", "Requests accepted and not finished; more get 429",
               "Requests accepted and not finished; more are answered with 429"},
    OptionLine{kBatching, "max-model-len", count_from<&Options::max_model_len, 0>(), "0",
               "Longest prompt with its answer, in tokens. 0: the model's context; else at least 2"},
    OptionLine{
        kBatching, "default-max-tokens", count_from<&Options::default_max_tokens, 0>(), "0",
        "max_tokens of chats that leave it out. 0: the model's max_new_tokens, else what the context has left",
        "`max_tokens` of chats that leave it out, or less where the context has less left. 0: the model's `max_new_tokens`, else what the context has left"},
    OptionLine{kBatching, "kv-cache-memory", byte_size<&Options::kv_cache_bytes>(), "256M", "Memory of the KV cache",
               "Memory of the KV cache. A request waits until its prompt fits; where answers outgrow it, the newest request waits and is computed again"},
    OptionLine{kBatching, "micro-batches", one_of<&Options::micro_batches, kMicroBatches>(), "1",
               "Into how many micro-batches a step may be split; auto measures which is faster",
               "`2` and `4` split large steps, so that one part computes while another's rows travel; `auto` measures for each size of step what is fastest"},
    OptionLine{
        kBatching, "cuda-graphs", one_of<&Options::cuda_graphs, kGraphModes>(), "auto",
        "How steps of decodes are launched on a GPU: without graphs, as graphs between exchanges, as one graph; auto: the most",
        "How steps of decodes are launched on a GPU: `none`, kernel by kernel; `piecewise`, as graphs between the exchanges of experts' rows; `full`, as one "
        "graph on one rank, over NCCL and for models without experts, else as piecewise; `auto`, as full, and none where the device has no graphs. The "
        "same on all ranks"},
    OptionLine{
        kBatching, "cuda-graph-max-tokens", count_from<&Options::cuda_graph_max_tokens, 1>(), "256",
        "Rows of the largest step that is launched as graphs, at most --max-num-seqs",
        "Rows, on the rank that has most, of the largest step that is launched as graphs; at most `--max-num-seqs`. Captured at the start: 1, 2, 4, 8, then "
        "multiples of 8"},
    OptionLine{
        kGroup, "gather-rows", count_from<&Options::gather_rows, 0>(), "4", "Up to so many rows of all ranks in an exchange, each rank gets every row",
        "Exchanges of at most so many rows, of all ranks together, send every row to every rank that holds experts: each message is packed once, and a rank "
        "that computes nothing for another sends it no answer. Above, a row goes only where an expert of its own lives. 0: always so"},
    OptionLine{
        kGroup, "combine", one_of<&Options::combine, kCombineModes>(), "per-expert",
        "What comes back of a row from a rank that holds several of its experts: each one's output, or their sum (per-rank)",
        "What comes back of a row from a rank that holds several of its experts: `per-expert`, each one's output; `per-rank`, their weighed sum, which takes "
        "fewer bytes where tokens have many experts, but an answer then depends on the number of ranks: [collectives](collectives.md)"},

    OptionLine{
        kGroup, "communicator", communicator_name(), "auto",
        "What carries rows and agreement between ranks with a GPU each: nccl, mpi, or auto, which is nccl where all ranks can use it",
        "What carries rows and agreement between ranks: `mpi`; `nccl`, for ranks with a GPU each; `auto`, which is `nccl` where all ranks can use it, and "
        "else says in the log why not. The same on all ranks: see [gpu](gpu.md)"},
    OptionLine{kGroup, "agreement", one_of<&Options::agreement, kAgreementModes>(), "sync",
               "When ranks agree on a step: after the one before it (sync), or while that one computes (pipelined)",
               "When ranks agree on a step: `sync`, after the one before it; `pipelined`, while that one computes, which hides the round trip: a request that "
               "arrives in a step then starts one step later, and one that ends by itself takes a row more. The same on all ranks, and without effect on a "
               "rank alone"},
    OptionLine{kGroup, "stall-timeout", duration<&Options::stall_timeout>(), "10s", "How long a rank may make no progress before its group ends",
               "A rank without progress or heartbeat for so long ends its group"},
    OptionLine{kGroup, "start-timeout", duration<&Options::start_timeout>(), "60s", "How long all ranks may take to find each other",
               "How long all ranks may take to find each other, MPI's start included"},
    OptionLine{kGroup, "drain-timeout", duration<&Options::drain_timeout>(), "30s", "How long accepted requests may take to finish after SIGTERM or SIGUSR1",
               "How long accepted requests may take to finish after the first signal; then they are cancelled"},
    OptionLine{kGroup, "heartbeat-interval", duration<&Options::heartbeat_interval>(), "100ms", "How often ranks tell each other of their progress",
               "How often ranks tell each other of their progress; at most a third of the stall timeout"},
    OptionLine{kGroup, "keep-alive-interval", duration<&Options::keep_alive_interval>(), "5s", "How often an idle group takes a step"},
    OptionLine{kGroup, "peer-bind", listen_address(), "(chosen)", "Address, or network, on which other ranks reach this one",
               "IPv4 address on which other ranks reach this one, or a network such as `10.0.0.0/24`: each host takes its own address in it. Default: "
               "loopback when all ranks share a host, else the first interface's"},
    OptionLine{kGroup, "peer-port", port_number<&Options::peer_port>(), "0",
               "Port on which the other ranks reach this host's first rank; the others count up. 0: any free one",
               "Port on which the other ranks reach the host's first rank; rank *i* of the host takes port + *i*. 0: one that the kernel chooses for each. A "
               "firewall between the"
               " hosts wants fixed ones: [deployment](deployment.md)"},
    OptionLine{kGroup, "group-secret-file", text_of<&Options::group_secret_file, kFile>("PATH"), "(none)",
               "File with the secret that all ranks share; or set LOCKSTEP_GROUP_SECRET",
               "File with the secret by which ranks know each other. `LOCKSTEP_GROUP_SECRET` holds the secret itself; it is no option, as arguments are "
               "visible to other users. Without either it is derived from the launcher's job id, with a warning. `lockstep-run` makes a random one"},

    OptionLine{kProcess, "log-level", one_of<&Options::log_level, kLogLevels>(), "info", "Least important kind of message that is logged",
               "`trace`, `debug`, `info`, `warning` or `error`; the log goes to standard error. `debug` adds each option that was set and where; `trace` "
               "adds each step, collective and request, at the price of some speed"},
    OptionLine{kProcess, "config", text_of<&Options::config_file, kFile>("PATH"), "(none)", "File of lines such as port = 8000", "The config file", false},

    OptionLine{kPreflight, "check", on_or_off<&Options::check>(), "false", "Check options, environment, model and memory, then leave: 0 when all is well",
               "Checks options, environment, model, addresses and memory, prints one line, leaves"},
    OptionLine{kPreflight, "dry-run", on_or_off<&Options::dry_run>(), "false", "Print ranks, device, memory and which rank holds which experts, then leave",
               "Prints the group: ranks, device, memory, and which rank holds which experts; leaves"},
    OptionLine{kPreflight, "assume-ranks", whole_number<&Options::assume_ranks, 0, kRanksMax>(), "0",
               "Of these two: a group of that many ranks on this host. 0: as started",
               "For these two: as if so many ranks were started on this host. 0: as they are started"},
};
// clang-format on

}  // namespace

std::span<const OptionLine> option_table() {
  return kLines;
}

std::string option_flag(std::string_view name) {
  return fmt::format("--{}", name);
}

std::string option_variable(std::string_view name) {
  std::string result = "LOCKSTEP_";
  for (const char c : name) {
    result += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return result;
}

std::string option_default(const OptionLine& line) {
  const std::string_view text = line.fallback;
  return std::string(text.starts_with('(') ? text.substr(1, text.size() - 2) : text);
}

}  // namespace lockstep::daemon
