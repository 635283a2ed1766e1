// Goal: options come from file, environment and command line in that order, and a bad one is named with its value and its source.
// Method: parse_options with made-up arguments and environments.
#include "daemon/options/options.hpp"

#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/options/option_table.hpp"
#include "daemon/options/values/values.hpp"

namespace lockstep::daemon {
namespace {

using ::testing::HasSubstr;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;
using std::chrono_literals::operator""min;
using std::chrono_literals::operator""h;

class Options : public ::testing::Test {
 protected:
  std::variant<DaemonOptions, EarlyExit> parse(const std::vector<std::string>& arguments) {
    const comm::EnvironmentReader environment = [this](std::string_view name) -> std::optional<std::string> {
      const auto found = environment_.find(std::string(name));
      return found == environment_.end() ? std::nullopt : std::optional(found->second);
    };
    return parse_options(arguments, environment, "1.2.3");
  }
  DaemonOptions good(const std::vector<std::string>& arguments) {
    auto result = parse(arguments);
    EXPECT_TRUE(std::holds_alternative<DaemonOptions>(result)) << std::get<EarlyExit>(result).text;
    return std::get<DaemonOptions>(result);
  }
  std::string bad(const std::vector<std::string>& arguments) {
    const auto result = parse(arguments);
    EXPECT_TRUE(std::holds_alternative<EarlyExit>(result));
    EXPECT_EQ(std::get<EarlyExit>(result).code, 2);
    return std::get<EarlyExit>(result).text;
  }
  std::string config_file(std::string_view text) {
    const auto path = std::filesystem::temp_directory_path() / ("lockstep_options_test_" + std::to_string(::getpid()) + ".conf");
    std::ofstream(path) << text;
    return path.string();
  }

  std::map<std::string, std::string> environment_;
};

TEST_F(Options, DefaultsHoldWhenNothingIsSet) {
  const DaemonOptions options = good({});
  EXPECT_EQ(options.host, "127.0.0.1");
  EXPECT_EQ(options.port, 8000);
  EXPECT_EQ(options.kv_cache_bytes, 256 << 20);
  EXPECT_EQ(options.stall_timeout, 10s);
}

TEST_F(Options, ThoseOfWhatRequestsAskForArrive) {
  const DaemonOptions options = good({"--generation-config=none", "--special-tokens-in-messages=refuse", "--default-max-tokens", "7"});
  EXPECT_FALSE(options.generation_config);
  EXPECT_EQ(options.special_tokens_in_messages, SpecialTokensInMessages::kRefuse);
  EXPECT_EQ(options.default_max_tokens, 7);
}

TEST_F(Options, BatchInvarianceIsASwitchThatIsOff) {
  EXPECT_FALSE(good({}).batch_invariant);
  EXPECT_TRUE(good({"--batch-invariant"}).batch_invariant);
}

TEST_F(Options, EveryOptionArrives) {
  const DaemonOptions options = good({"--model",
                                      "/m",
                                      "--served-model-name=x",
                                      "--chat-template=/t.jinja",
                                      "--load-format",
                                      "dummy",
                                      "--dummy-seed",
                                      "18446744073709551615",
                                      "--device",
                                      "cpu",
                                      "--host",
                                      "::1",
                                      "--port=0",
                                      "--shared-port",
                                      "9",
                                      "--max-num-seqs",
                                      "3",
                                      "--max-num-batched-tokens",
                                      "4",
                                      "--max-pending",
                                      "5",
                                      "--max-model-len",
                                      "6",
                                      "--kv-cache-memory",
                                      "2G",
                                      "--micro-batches",
                                      "2",
                                      "--agreement",
                                      "pipelined",
                                      "--stall-timeout",
                                      "3",
                                      "--start-timeout",
                                      "4s",
                                      "--drain-timeout",
                                      "5m",
                                      "--heartbeat-interval",
                                      "60ms",
                                      "--keep-alive-interval",
                                      "1.5",
                                      "--peer-bind",
                                      "127.0.0.1",
                                      "--group-secret-file",
                                      "/s",
                                      "--log-level",
                                      "debug"});
  EXPECT_EQ(options.model, "/m");
  EXPECT_THAT(options.served_model_names, ::testing::ElementsAre("x"));
  EXPECT_EQ(options.chat_template_file, "/t.jinja");
  EXPECT_EQ(options.load_format, LoadFormat::kDummy);
  EXPECT_EQ(options.dummy_seed, 18446744073709551615ULL);
  EXPECT_EQ(options.host, "::1");
  EXPECT_EQ(options.port, 0);
  EXPECT_EQ(options.shared_port, 9);
  EXPECT_EQ(options.max_num_seqs, 3);
  EXPECT_EQ(options.max_num_batched_tokens, 4);
  EXPECT_EQ(options.max_pending, 5);
  EXPECT_EQ(options.max_model_len, 6);
  EXPECT_EQ(options.kv_cache_bytes, std::int64_t{2} << 30);
  EXPECT_EQ(options.micro_batches, 2);
  EXPECT_EQ(options.agreement, scheduler::AgreementMode::kPipelined);
  EXPECT_EQ(options.stall_timeout, 3s);
  EXPECT_EQ(options.start_timeout, 4s);
  EXPECT_EQ(options.drain_timeout, 5min);
  EXPECT_EQ(options.heartbeat_interval, 60ms);
  EXPECT_EQ(options.keep_alive_interval, 1500ms);
  EXPECT_EQ(options.peer_bind, "127.0.0.1");
  EXPECT_EQ(options.group_secret_file, "/s");
  EXPECT_EQ(options.log_level, "debug");
}

TEST_F(Options, EnvironmentBeatsTheFileAndTheCommandLineBeatsBoth) {
  const std::string file = config_file("port = 1\nmax-num-seqs = 2\nmax-pending = 3\n");
  environment_ = {{"LOCKSTEP_MAX_NUM_SEQS", "20"}, {"LOCKSTEP_MAX_PENDING", "30"}, {"LOCKSTEP_CONFIG", file}};
  const DaemonOptions options = good({"--max-pending", "300"});
  EXPECT_EQ(options.port, 1);
  EXPECT_EQ(options.max_num_seqs, 20);
  EXPECT_EQ(options.max_pending, 300);
  EXPECT_THAT(options.given, ::testing::ElementsAre("port = 1 (in " + file + " line 1)", "max-num-seqs = 20 (by LOCKSTEP_MAX_NUM_SEQS)",
                                                    "max-pending = 300 (on the command line)", "config = " + file + " (by LOCKSTEP_CONFIG)"));
}

TEST_F(Options, BadValueIsNamedWithItsSourceAndWhatIsExpected) {
  EXPECT_THAT(bad({"--port", "70000"}), HasSubstr(R"(--port: "70000" (set on the command line) is not a port from 0 to 65535)"));
  // Both ends: a number that is too large says as much.
  EXPECT_THAT(bad({"--max-num-batched-tokens", "99999999999"}),
              HasSubstr(R"(--max-num-batched-tokens: "99999999999" (set on the command line) is not a whole number from 1 to 2147483647)"));
  EXPECT_THAT(bad({"--dummy-seed", "18446744073709551616"}), HasSubstr("is not a whole number from 0 to 18446744073709551615"));
  EXPECT_THAT(bad({"--kv-cache-memory", "8388608T"}), HasSubstr("is not a size from 1 byte to 8388607T"));
  EXPECT_THAT(bad({"--max-model-len", "1"}), HasSubstr("--max-model-len: 1 has no room for a prompt and its answer"));
  EXPECT_THAT(bad({"--peer-bind", "localhost"}), HasSubstr(R"(--peer-bind: "localhost" (set on the command line) is not an IPv4 address)"));
  EXPECT_THAT(bad({"--peer-bind", "10.0.0.0/33"}), HasSubstr("or a network such as 10.0.0.0/24"));
  EXPECT_THAT(bad({"--agreement", "async"}), HasSubstr(R"(--agreement: "async" (set on the command line) is not sync or pipelined)"));
  environment_ = {{"LOCKSTEP_MICRO_BATCHES", "3"}};
  EXPECT_THAT(bad({}), HasSubstr(R"(--micro-batches: "3" (set by LOCKSTEP_MICRO_BATCHES) is not 1, 2, 4 or auto)"));
  environment_.clear();
  EXPECT_THAT(bad({"--config", config_file("kv-cache-memory = lots\n")}),
              HasSubstr(R"(--kv-cache-memory: "lots" (set in )" + config_file("kv-cache-memory = lots\n") +
                        " line 1) is not a size from 1 byte to 8388607T, such as 256M or 2G"));
}

TEST_F(Options, ANumberThatIsNotTakenIsAnsweredWithTheNearestThatIs) {
  struct Bad {
    const char* option;
    const char* value;
    const char* nearest;
  };
  constexpr std::array kAll{Bad{"port", "70000", "65535"},
                            Bad{"port", "-1", "0"},
                            Bad{"port", "8000.4", "8000"},
                            Bad{"port", "8e3", "8000"},
                            Bad{"port", "99999999999999999999999999", "65535"},
                            Bad{"port", "1e999", "65535"},
                            Bad{"port", "-1e999", "0"},
                            Bad{"port", "1e-999", "0"},
                            Bad{"max-num-seqs", "0", "1"},
                            Bad{"max-num-seqs", "2147483648", "2147483647"},
                            Bad{"gather-rows", "-3", "0"},
                            Bad{"assume-ranks", "4097", "4096"},
                            Bad{"dummy-seed", "18446744073709551616", "18446744073709551615"},
                            Bad{"dummy-seed", "-1", "0"},
                            Bad{"kv-cache-memory", "0", "1"},
                            Bad{"kv-cache-memory", "-5G", "1"},
                            Bad{"kv-cache-memory", "8388608T", "8388607T"},
                            Bad{"kv-cache-memory", "1.5K", "1536"},
                            Bad{"stall-timeout", "0", "1ms"},
                            Bad{"stall-timeout", "0.5ms", "1ms"},
                            Bad{"stall-timeout", "-10s", "1ms"},
                            Bad{"stall-timeout", "721h", "720h"},
                            Bad{"stall-timeout", "1e999s", "720h"},
                            Bad{"micro-batches", "3", "2"},
                            Bad{"micro-batches", "8", "4"}};
  for (const Bad& each : kAll) {
    const std::string ending = std::string("; the nearest valid value is ") + each.nearest;
    const std::string line = std::string(each.option) + " = " + each.value + "\n";
    const std::string flag = std::string("--") + each.option;
    for (const std::string& message : {bad({flag + "=" + each.value}), bad({"--config", config_file(line)})}) {
      EXPECT_THAT(message, HasSubstr(ending)) << each.value;
      EXPECT_THAT(message, HasSubstr(flag + ": \"" + each.value + "\" (set ")) << each.value;
    }
    environment_ = {{option_variable(each.option), each.value}};
    EXPECT_THAT(bad({}), HasSubstr(ending)) << each.value;
    environment_.clear();
  }
  for (const char* none : {"nan", "7x", "", "0x10", "+5"}) {
    EXPECT_THAT(bad({std::string("--port=") + none}), ::testing::Not(HasSubstr("nearest"))) << none << ": no number";
  }
}

TEST_F(Options, EveryValueThatIsNamedAsNearestIsTaken) {
  for (const OptionLine& line : option_table()) {
    if (line.kind.nearest == nullptr) {
      continue;
    }
    for (const char* beyond : {"-1", "1e999"}) {
      DaemonOptions options;
      EXPECT_FALSE(line.kind.apply(beyond, options)) << line.name;
      EXPECT_TRUE(line.kind.apply(line.kind.nearest(beyond), options)) << line.name << " " << line.kind.nearest(beyond);
    }
  }
}

TEST_F(Options, ValueThatIsMissingOrEmptyIsNamed) {
  EXPECT_THAT(bad({"--port"}), HasSubstr("--port: a value must follow it"));
  EXPECT_THAT(bad({"--port="}), HasSubstr(R"(--port: "" (set on the command line) is not a port)"));
  EXPECT_THAT(bad({"--config="}), HasSubstr(R"(--config: "" (set on the command line) is not the path of a file)"));
  environment_ = {{"LOCKSTEP_PORT", ""}};
  EXPECT_THAT(bad({}), HasSubstr(R"(--port: "" (set by LOCKSTEP_PORT) is not a port)"));
}

TEST_F(Options, UnknownNamesAreRefusedEverywhere) {
  EXPECT_THAT(bad({"--prot", "1"}), HasSubstr(R"("--prot" is no option of lockstepd; did you mean --port?)"));
  EXPECT_THAT(bad({"--max_num_seqs=1"}), HasSubstr(R"("--max_num_seqs" is no option of lockstepd; did you mean --max-num-seqs?)"));
  EXPECT_THAT(bad({"-p"}), HasSubstr(R"("-p" is no option of lockstepd)"));
  EXPECT_THAT(bad({"extra"}), HasSubstr(R"(unexpected argument "extra")"));
  const std::string file = config_file("prot = 1\n");
  EXPECT_THAT(bad({"--config", file}), HasSubstr(file + R"( line 1: "prot" is no option of lockstepd for a file; did you mean "port"?)"));
  EXPECT_THAT(bad({"--config", config_file("help = true\n")}), HasSubstr(file + R"( line 1: "help")"));
  EXPECT_THAT(bad({"--config", "/nonexistent/file"}), HasSubstr("--config /nonexistent/file: "));
}

TEST_F(Options, VariableThatIsNoOptionIsFound) {
  EXPECT_THAT(unknown_variables(std::vector<std::string>{"LOCKSTEP_MAX_NUM_SEQ", "LOCKSTEP_PORT", "LOCKSTEP_CONFIG", "LOCKSTEP_GROUP_SECRET", "PATH"}),
              ::testing::ElementsAre(UnknownVariable{"LOCKSTEP_MAX_NUM_SEQ", "LOCKSTEP_MAX_NUM_SEQS"}));
  EXPECT_THAT(unknown_variables(std::vector<std::string>{"LOCKSTEP_SERVICE_HOST"}), ::testing::ElementsAre(UnknownVariable{"LOCKSTEP_SERVICE_HOST", ""}));
}

TEST_F(Options, NameThatIsNoChoiceIsAnsweredWithTheNearest) {
  EXPECT_THAT(bad({"--load-format", "dumy"}), HasSubstr(R"(is not auto, safetensors or dummy; did you mean "dummy"?)"));
  environment_ = {{"LOCKSTEP_LOG_LEVEL", "warn"}};
  EXPECT_THAT(bad({}), HasSubstr(R"(--log-level: "warn" (set by LOCKSTEP_LOG_LEVEL) is not trace, debug, info, warning or error; did you mean "warning"?)"));
  environment_.clear();
  EXPECT_THAT(bad({"--device", "abacus"}), HasSubstr(R"(--device: "abacus" (set on the command line) is not a device: auto, cuda or cpu)"));
}

TEST_F(Options, OfTwoOnTheCommandLineTheLastCounts) {
  EXPECT_EQ(good({"--port", "1", "--port=2"}).port, 2);
  EXPECT_EQ(good({"--port", "bad", "--port=2"}).port, 2);
  EXPECT_THAT(bad({"--port", "1", "2"}), HasSubstr(R"(unexpected argument "2")"));
  EXPECT_THAT(bad({"--port", "-1"}), HasSubstr(R"(--port: "-1" (set on the command line))"));
}

TEST_F(Options, ListsTakeSeveralValuesAndReplaceThoseOfAWeakerSource) {
  using ::testing::ElementsAre;
  EXPECT_THAT(good({"--served-model-name", "a", "b", "--served-model-name=c,d"}).served_model_names, ElementsAre("a", "b", "c", "d"));
  const std::string file = config_file("served-model-name = [\"a\", # one\n  'b', c ]\n");
  EXPECT_THAT(good({"--config", file}).served_model_names, ElementsAre("a", "b", "c"));
  environment_ = {{"LOCKSTEP_SERVED_MODEL_NAME", "e,f"}};
  EXPECT_THAT(good({"--config", file}).served_model_names, ElementsAre("e", "f"));
  EXPECT_THAT(good({"--config", file, "--served-model-name", "g"}).served_model_names, ElementsAre("g"));
  EXPECT_THAT(bad({"--served-model-name", "a,,b"}), HasSubstr(R"(--served-model-name: "" (set on the command line) is not one or several names)"));
}

TEST_F(Options, SwitchesNeedNoValue) {
  EXPECT_TRUE(good({"--check"}).check);
  EXPECT_TRUE(good({"--check", "--port", "1"}).check);
  EXPECT_TRUE(good({"--check", "on"}).check);
  EXPECT_FALSE(good({"--check", "--check=no"}).check);
  EXPECT_TRUE(good({"--config", config_file("check\n")}).check);
  environment_ = {{"LOCKSTEP_CHECK", "1"}};
  EXPECT_TRUE(good({}).check);
  EXPECT_FALSE(good({"--check", "false"}).check);
  EXPECT_THAT(bad({"--check=ture"}), HasSubstr(R"(--check: "ture" (set on the command line) is not true or false; did you mean "true"?)"));
  EXPECT_THAT(bad({"--check", "maybe"}), HasSubstr(R"(unexpected argument "maybe")"));
  EXPECT_THAT(bad({"--check="}), HasSubstr(R"(--check: "" (set on the command line) is not true or false)"));
}

TEST_F(Options, OptionsThatContradictEachOtherAreRefused) {
  EXPECT_THAT(bad({"--stall-timeout", "1s", "--heartbeat-interval", "500ms"}), HasSubstr("--heartbeat-interval"));
  EXPECT_THAT(bad({"--port", "9", "--shared-port", "9"}), HasSubstr("--shared-port"));
}

TEST_F(Options, HelpAndVersionEndWithSuccess) {
  const auto version = std::get<EarlyExit>(parse({"--version"}));
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.text, "lockstepd 1.2.3\n");
  const auto help = std::get<EarlyExit>(parse({"--help"}));
  EXPECT_EQ(help.code, 0);
  for (const OptionName& name : option_names()) {
    EXPECT_THAT(help.text, HasSubstr(name.flag));
    EXPECT_THAT(help.text, HasSubstr(name.environment));
  }
}

TEST(OptionValues, SizesAreMultiplesOf1024) {
  EXPECT_EQ(read_byte_size("1"), 1);
  EXPECT_EQ(read_byte_size("3K"), 3072);
  EXPECT_EQ(read_byte_size("1MiB"), 1 << 20);
  EXPECT_EQ(read_byte_size("8388607T"), std::int64_t{8388607} << 40);
  for (const char* bad : {"", "0", "-1", "K", "1.5G", "1 G", "8388608T", "99999999999999999999", "1g", "0x10"}) {
    EXPECT_EQ(read_byte_size(bad), std::nullopt) << bad;
  }
}

TEST(OptionValues, DurationsHaveUnits) {
  EXPECT_EQ(read_duration("10"), 10s);
  EXPECT_EQ(read_duration("1.5s"), 1500ms);
  EXPECT_EQ(read_duration("2h"), 2h);
  for (const char* bad : {"", "s", "-1", "0", "nan", "inf", "1d", "1e30", "0.0001ms", "1 s"}) {
    EXPECT_EQ(read_duration(bad), std::nullopt) << bad;
  }
}

}  // namespace
}  // namespace lockstep::daemon
