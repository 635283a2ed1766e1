// DaemonOptions: everything that a user may set, from a config file, the environment or the command line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "lockstep/comm/expert_exchange.hpp"
#include "lockstep/comm/launch.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/forward_context.hpp"
#include "lockstep/scheduler/agreement_mode.hpp"
#include "lockstep/scheduler/request.hpp"

namespace lockstep::daemon {

inline constexpr std::int32_t kMicroBatchesAuto = 0;

/// Which requests get a line: none, all but probes and scrapes that went well, all.
enum class AccessLogLevel { kOff, kRequests, kAll };

enum class LoadFormat { kAuto, kSafetensors, kDummy };

/// Whether a message of a conversation may have the text of a special token, which then is that token.
enum class SpecialTokensInMessages { kAccept, kRefuse };

/// Checked one by one: every number is in its range.      Threads  a value.
struct DaemonOptions {
  std::filesystem::path model;                  ///< "" is the model that comes with lockstep
  std::vector<std::string> served_model_names;  ///< the first is shown; none is the model folder's name
  std::filesystem::path chat_template_file;     ///< "" is the model's own
  bool generation_config = true;                ///< generation_config.json has the defaults of sampling
  SpecialTokensInMessages special_tokens_in_messages = SpecialTokensInMessages::kAccept;
  LoadFormat load_format = LoadFormat::kAuto;
  std::uint64_t dummy_seed = 0;
  std::string device = "cpu";
  bool batch_invariant = false;  ///< device::DeviceOptions has what it means

  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;  ///< of local rank 0; 0: any free one
  std::uint16_t shared_port = 0;
  std::uint16_t peer_port = 0;
  std::filesystem::path unix_socket;  ///< in the place of host and port; "" is none
  std::string metrics_address;        ///< HOST:PORT of local rank 0; "" is none
  std::vector<std::string> api_keys;
  std::filesystem::path api_key_file;
  std::filesystem::path tls_certificate;
  std::filesystem::path tls_key;
  std::vector<std::string> cors_origins;
  std::vector<std::string> allowed_hosts;       ///< beside those that are nobody's domain
  Duration request_timeout = Duration::zero();  ///< zero: no limit
  AccessLogLevel access_log = AccessLogLevel::kRequests;

  std::int32_t max_num_seqs = 64;
  std::int32_t max_num_batched_tokens = 1024;
  std::int32_t max_pending = 1024;
  std::int32_t max_model_len = 0;       ///< 0: the model's context
  std::int32_t default_max_tokens = 0;  ///< of chats; 0: the model's, or what the context has left
  std::int64_t kv_cache_bytes = std::int64_t{256} << 20;
  std::int32_t micro_batches = 1;  ///< 1, 2, 4, or kMicroBatchesAuto
  std::int32_t gather_rows = comm::kGatherRowsDefault;
  comm::CombineMode combine = comm::CombineMode::kPerExpert;
  std::string communicator = "auto";
  std::optional<GraphMode> cuda_graphs;  ///< the most; none: as many as there can be
  std::int32_t cuda_graph_max_tokens = 256;

  scheduler::AgreementMode agreement = scheduler::AgreementMode::kSync;
  Duration stall_timeout = std::chrono::seconds(10);
  Duration start_timeout = std::chrono::seconds(60);
  Duration drain_timeout = std::chrono::seconds(30);
  Duration heartbeat_interval = std::chrono::milliseconds(100);
  Duration keep_alive_interval = std::chrono::seconds(5);
  std::string peer_bind;
  std::filesystem::path group_secret_file;

  scheduler::Pooling embedding_pooling = scheduler::Pooling::kLast;

  std::string log_level = "info";
  std::filesystem::path config_file;  ///< that these were read from; "" is none

  bool check = false;             ///< instead of serving: is all well?
  bool dry_run = false;           ///< instead of serving: which rank would hold what?
  std::int32_t assume_ranks = 0;  ///< of these two: a group of this size; 0: as launched

  std::vector<std::string> given;  ///< what was set, by whom, for the log: "max-num-seqs = 32 (by LOCKSTEP_MAX_NUM_SEQS)"; secrets are not shown

  friend bool operator==(const DaemonOptions& a, const DaemonOptions& b) = default;
};

/// The process is to end at once: --help, --version, or a value that cannot be used.
struct EarlyExit {
  int code = 0;
  std::string text;  ///< for standard output when code is 0, else for standard error
};

/// One option as users see it, for the documentation's test.
struct OptionName {
  std::string flag;         ///< "--max-num-seqs"; also its key in the config file, without the dashes
  std::string environment;  ///< "LOCKSTEP_MAX_NUM_SEQS"
};
[[nodiscard]] std::vector<OptionName> option_names();

/// `arguments` without the program's name. Config file < environment < command line; of an option that is given twice on the command line the last counts.
/// An error names option, value, where it was set, what is expected, and the nearest name where one is near. Values that another source overrides are not read.
[[nodiscard]] std::variant<DaemonOptions, EarlyExit> parse_options(std::span<const std::string> arguments, const comm::EnvironmentReader& environment,
                                                                   std::string_view version);

/// A variable that looks like an option of ours and is none: a slip of the pen that would otherwise do nothing.
struct UnknownVariable {
  std::string name;
  std::string nearest;  ///< the variable that was probably meant; "" when none is near
  friend bool operator==(const UnknownVariable& a, const UnknownVariable& b) = default;
};
/// Those among `names`, the names of the whole environment.
[[nodiscard]] std::vector<UnknownVariable> unknown_variables(std::span<const std::string> names);

}  // namespace lockstep::daemon
