// Goal    On every device that is launched to, recorded work gives at each launch what its ops would give if they were called then; what cannot be recorded is
// an
//         error. Hosts have no graphs.
// Method  Ops through the device's interface, on all backends of the table; on a GPU by `ctest -L gpu`.
#include "lockstep/device/graph.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>
#include <vector>

#include "tests/conformance/device/device_fixture.hpp"

namespace lockstep::device {
namespace {

class GraphConformance : public DeviceFixture, public ::testing::WithParamInterface<DeviceBackend> {
 protected:
  static constexpr std::int64_t kWidth = 8;
  static constexpr std::size_t kRows = 4;

  void SetUp() override {
    open(GetParam());
    if (IsSkipped()) {
      return;
    }
    ASSERT_NE(device_->graphs(), nullptr);
    std::vector<float> values(100 * kWidth);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t row = i / kWidth;
      values[i] = static_cast<float>(row);
    }
    table_ = upload(values);
    out_ = allocate(kRows * kWidth * sizeof(float));
    auto inputs = device_->graphs()->make_inputs(64);
    ASSERT_TRUE(inputs) << inputs.error().message;
    inputs_ = std::move(*inputs);
  }
  [[nodiscard]] std::span<std::int32_t> ids() const { return {reinterpret_cast<std::int32_t*>(inputs_->host().data()), kRows}; }
  /// out[r] = table[ids[r]].
  Status gather(std::span<const std::int32_t> from) {
    ops_->gather_rows(*stream_, table_.as<float>(), from, kWidth, out_.as<float>());
    return {};
  }
  [[nodiscard]] std::vector<float> first_columns() {
    const std::vector<float> values = download<float>(out_, kRows * kWidth);
    return {values[0], values[kWidth], values[2 * kWidth], values[3 * kWidth]};
  }

  Buffer table_;
  Buffer out_;
  std::unique_ptr<GraphInputs> inputs_;
};

TEST_P(GraphConformance, ALaunchDoesWhatTheOpsWouldDoWithTheInputsOfThen) {
  run([&] {
    inputs_->upload(*stream_, 0, inputs_->host().size());
    static_cast<void>(gather(ids()));
  });
  ASSERT_TRUE(stream_->synchronize(patience()));
  auto graph = device_->graphs()->capture(*stream_, [this] { return gather(ids()); });
  ASSERT_TRUE(graph) << graph.error().message;
  const DeviceUsage before = device_->usage();
  for (const std::int32_t first : {5, 90, 17}) {
    for (std::int32_t i = 0; i < static_cast<std::int32_t>(kRows); ++i) {
      ids()[static_cast<std::size_t>(i)] = first + i;
    }
    run([&] {
      inputs_->upload(*stream_, 0, inputs_->host().size());
      (*graph)->launch(*stream_);
    });
    const auto row = static_cast<float>(first);
    EXPECT_EQ(first_columns(), (std::vector<float>{row, row + 1, row + 2, row + 3}));
  }
  EXPECT_EQ(device_->usage().graph_launches - before.graph_launches, 3U);
  EXPECT_EQ(device_->usage().launches - before.launches, 3U);
}

TEST_P(GraphConformance, InputsAreTakenFromTheDevicesCopyWithoutAGraphToo) {
  std::ranges::fill(ids(), 33);
  run([&] {
    inputs_->upload(*stream_, 0, inputs_->host().size());
    static_cast<void>(gather(ids()));
  });
  EXPECT_EQ(first_columns(), std::vector<float>(kRows, 33.0F));
}

TEST_P(GraphConformance, MemoryOfTheHostThatIsNoInputIsAnErrorAndTheStreamGoesOn) {
  const std::vector<std::int32_t> elsewhere(kRows, 9);
  run([&] { static_cast<void>(gather(elsewhere)); });
  ASSERT_TRUE(stream_->synchronize(patience()));
  const auto graph = device_->graphs()->capture(*stream_, [&] { return gather(elsewhere); });
  ASSERT_FALSE(graph);
  EXPECT_NE(graph.error().message.find("not in graph inputs: replays would not see new ones"), std::string::npos) << graph.error().message;
  run([&] { static_cast<void>(gather(elsewhere)); });
  EXPECT_EQ(first_columns(), std::vector<float>(kRows, 9.0F));
}

TEST_P(GraphConformance, WaitingForTheDeviceIsAnErrorThatNamesTheCallAndTheStreamGoesOn) {
  const auto graph = device_->graphs()->capture(*stream_, [&]() -> Status { return stream_->synchronize(patience()); });
  ASSERT_FALSE(graph);
  EXPECT_NE(graph.error().message.find("cudaStreamQuery failed"), std::string::npos) << graph.error().message;
  EXPECT_NE(graph.error().message.find("\"test\""), std::string::npos) << graph.error().message;
  EXPECT_TRUE(stream_->synchronize(patience()));
}

TEST_P(GraphConformance, AFailureOfWhatIsRecordedIsTheCapturesAndTheStreamGoesOn) {
  const auto graph = device_->graphs()->capture(*stream_, []() -> Status { return Error{ErrorCode::kUnsupported, "not this one"}; });
  ASSERT_FALSE(graph);
  EXPECT_EQ(graph.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(graph.error().message, "not this one");
  EXPECT_TRUE(stream_->synchronize(patience()));
}

class NoGraphs : public DeviceFixture, public ::testing::WithParamInterface<DeviceBackend> {};

TEST_P(NoGraphs, ADeviceThatRunsTasksItselfHasNone) {
  open(GetParam());
  EXPECT_EQ(device_->graphs(), nullptr);
}

/// Graphs are what devices have that are launched to; the host is not.
std::vector<DeviceBackend> backends(bool host_memory) {
  std::vector<DeviceBackend> found;
  std::ranges::copy_if(device_backends(), std::back_inserter(found), [host_memory](const DeviceBackend& each) { return each.host_memory == host_memory; });
  return found;
}
std::string test_name(const ::testing::TestParamInfo<DeviceBackend>& named) {
  return std::string(named.param.name);
}

INSTANTIATE_TEST_SUITE_P(Devices, GraphConformance, ::testing::ValuesIn(backends(false)), test_name);
INSTANTIATE_TEST_SUITE_P(Hosts, NoGraphs, ::testing::ValuesIn(backends(true)), test_name);

}  // namespace
}  // namespace lockstep::device
