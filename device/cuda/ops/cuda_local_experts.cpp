#include "device/cuda/ops/cuda_local_experts.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "device/cuda/kernels/launch.hpp"
#include "device/cuda/ops/cuda_weight.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::device::cuda {

namespace {

/// Copying some KiB takes microseconds: after this long the device hangs.
constexpr Duration kCopyLimit = std::chrono::seconds(60);
/// Where ids, and blocks, begin: NCCL moves 16 bytes at a time.
constexpr std::size_t kBlockAlignment = 16;

const CudaWeight& cuda_weight(const WeightHandle& weight) {
  return static_cast<const CudaWeight&>(*weight);
}

std::size_t aligned(std::size_t bytes) {
  return (bytes + kBlockAlignment - 1) / kBlockAlignment * kBlockAlignment;
}

std::int64_t own_experts(const LocalExpertsOptions& options) {
  std::int64_t most = 0;
  for (const ExpertWeights& layer : options.layers) {
    most = std::max(most, std::ssize(layer.gate_up));
  }
  return most;
}

/// A table of the host, on the device.
template <typename T>
Result<Buffer> place(const CudaContext& context, DeviceMemory& memory, std::span<const T> values) {
  LOCKSTEP_ASSIGN_OR_RETURN(Buffer device, memory.allocate(values.size_bytes()));
  LOCKSTEP_ASSIGN_OR_RETURN(const Buffer pinned, allocate_pinned(context, values.size_bytes()));
  std::ranges::copy(values, pinned.as<T>());
  // Its own context would outlive the call: borrowed, since the stream does not.
  CudaStream stream(std::shared_ptr<const CudaContext>(std::shared_ptr<const CudaContext>(), &context), "experts", StreamPriority::kNormal);
  if (!values.empty()) {
    stream.check(cudaMemcpyAsync(device.as<void>(), pinned.as<void>(), values.size_bytes(), cudaMemcpyHostToDevice, stream.native()),
                 "cudaMemcpyAsync (experts)");
  }
  LOCKSTEP_RETURN_IF_ERROR(stream.synchronize(Deadline::after(kCopyLimit)));
  return device;
}

}  // namespace

Result<std::unique_ptr<LocalExperts>> CudaLocalExperts::create(const CudaContext& context, DeviceMemory& memory, std::shared_ptr<const HostCopies> copies,
                                                               const LocalExpertsOptions& options) {
  std::unique_ptr<CudaLocalExperts> made(new CudaLocalExperts(options, std::move(copies)));  // the constructor is private
  LOCKSTEP_RETURN_IF_ERROR(made->allocate(memory));
  LOCKSTEP_RETURN_IF_ERROR(made->place_tables(context, memory, options));
  return std::unique_ptr<LocalExperts>(std::move(made));
}

CudaLocalExperts::CudaLocalExperts(const LocalExpertsOptions& options, std::shared_ptr<const HostCopies> copies)
    : copies_(std::move(copies)),
      members_(options.shares.members),
      me_(options.shares.me),
      expert_count_(std::ssize(options.shares.computed_by)),
      experts_(own_experts(options)),
      hidden_(options.hidden),
      width_(options.width),
      rows_max_(options.rows_max),
      top_k_(options.top_k) {
  LOCKSTEP_CHECK(std::ssize(options.shares.local_index) == members_ * expert_count_ && me_ >= 0 && me_ < members_,
                 "member {} of {}, {} places of experts for {} experts", me_, members_, options.shares.local_index.size(), expert_count_);
}

Status CudaLocalExperts::allocate(DeviceMemory& memory) {
  const std::int64_t choices = members_ * rows_max_ * top_k_;
  const std::int64_t places = members_ * rows_max_ * std::min<std::int64_t>(top_k_, experts_);
  const auto allocate_into = [&memory](Buffer& buffer, std::int64_t elements, std::size_t element_bytes) -> Status {
    LOCKSTEP_ASSIGN_OR_RETURN(buffer, memory.allocate(static_cast<std::size_t>(elements) * element_bytes));
    return {};
  };
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(offsets_, experts_ + 1, sizeof(std::int32_t)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(source_, places, sizeof(std::int32_t)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(place_of_, choices, sizeof(std::int32_t)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(grouped_, places * hidden_, sizeof(BFloat16)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(gate_up_, places * 2 * width_, sizeof(float)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(activated_, places * width_, sizeof(BFloat16)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(down_, places * hidden_, sizeof(float)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(returned_, choices * hidden_, sizeof(BFloat16)));
  if (members_ > 1) {
    LOCKSTEP_RETURN_IF_ERROR(allocate_into(gathered_, members_, gathered_bytes(rows_max_)));
    LOCKSTEP_RETURN_IF_ERROR(allocate_into(received_, members_, returned_bytes(rows_max_)));
  }
  return {};
}

Status CudaLocalExperts::place_tables(const CudaContext& context, DeviceMemory& memory, const LocalExpertsOptions& options) {
  std::vector<const BFloat16*> addresses;
  for (const ExpertWeights& layer : options.layers) {
    for (const std::span<const WeightHandle> matrices : {layer.gate_up, layer.down}) {
      LOCKSTEP_CHECK(matrices.empty() || std::ssize(matrices) == experts_, "{} experts in a layer, {} in another", matrices.size(), experts_);
      const std::size_t begin = addresses.size();
      addresses.resize(begin + static_cast<std::size_t>(experts_), nullptr);  // layers without experts have no addresses
      std::ranges::transform(matrices, addresses.begin() + static_cast<std::ptrdiff_t>(begin),
                             [](const WeightHandle& weight) { return cuda_weight(weight).data(); });
    }
  }
  LOCKSTEP_ASSIGN_OR_RETURN(weights_, place<const BFloat16*>(context, memory, addresses));
  LOCKSTEP_ASSIGN_OR_RETURN(local_index_, place<std::int32_t>(context, memory, options.shares.local_index));
  LOCKSTEP_ASSIGN_OR_RETURN(computed_by_, place<std::int32_t>(context, memory, options.shares.computed_by));
  return {};
}

std::size_t CudaLocalExperts::id_offset(std::int64_t rows) const {
  return aligned(static_cast<std::size_t>(rows * hidden_) * sizeof(BFloat16));
}

std::size_t CudaLocalExperts::gathered_bytes(std::int64_t rows) const {
  return id_offset(rows) + aligned(static_cast<std::size_t>(rows * top_k_) * sizeof(std::int32_t));
}

std::size_t CudaLocalExperts::returned_bytes(std::int64_t rows) const {
  return static_cast<std::size_t>(rows * top_k_ * hidden_) * sizeof(BFloat16);
}

std::size_t CudaLocalExperts::sent_bytes(std::int64_t rows) const {
  return static_cast<std::size_t>(members_ - 1) * (gathered_bytes(rows) + returned_bytes(rows));
}

void CudaLocalExperts::run(CudaStream& on, std::size_t layer, const ExpertChoices& choices) {
  LOCKSTEP_CHECK(choices.rows <= rows_max_, "{} rows for experts, at most {}", choices.rows, rows_max_);
  const std::int64_t rows = members_ * choices.rows;
  const std::int64_t places = rows * std::min<std::int64_t>(top_k_, experts_);
  auto* const offsets = offsets_.as<std::int32_t>();
  const std::int32_t* const end = offsets + experts_;
  const cudaStream_t native = on.native();
  on.launched(launch_group_choices(native, choices, static_cast<int>(experts_), offsets, source_.as<std::int32_t>(), place_of_.as<std::int32_t>()),
              "group_choices");
  on.launched(launch_take_rows(native, choices, places, end, source_.as<std::int32_t>(), hidden_, grouped_.as<BFloat16>()), "take_rows");
  on.launched(launch_grouped_matmul(native, grouped_.as<BFloat16>(), offsets, weights(layer, 0), experts_, places, hidden_, 2 * width_, gate_up_.as<float>()),
              "grouped_matmul (gate_up)");
  on.launched(launch_activate(native, gate_up_.as<float>(), places, end, width_, activated_.as<BFloat16>()), "activate");
  on.launched(launch_grouped_matmul(native, activated_.as<BFloat16>(), offsets, weights(layer, 1), experts_, places, width_, hidden_, down_.as<float>()),
              "grouped_matmul (down)");
  on.launched(launch_give_rows(native, down_.as<float>(), place_of_.as<std::int32_t>(), rows * top_k_, hidden_, returned_.as<BFloat16>()), "give_rows");
}

void CudaLocalExperts::compute(Stream& stream, std::size_t layer, const ChosenExperts& chosen, float* out) {
  LOCKSTEP_CHECK(members_ == 1, "member {} of {} computes alone", me_, members_);
  auto& on = static_cast<CudaStream&>(stream);
  run(on, layer,
      {.x = chosen.x,
       .expert_ids = chosen.expert_ids,
       .local_index = local_index_.as<std::int32_t>(),
       .rows = static_cast<int>(chosen.rows),
       .top_k = top_k_,
       .expert_count = static_cast<int>(expert_count_)});
  weigh_returned(on, {.returned = returned_.as<BFloat16>(), .expert_ids = chosen.expert_ids}, chosen, out);
}

MemberBlocks CudaLocalExperts::pack(Stream& stream, const ChosenExperts& chosen) {
  LOCKSTEP_CHECK(chosen.rows <= rows_max_ && std::ssize(chosen.positions) == chosen.rows, "{} rows at {} positions for experts, at most {}", chosen.rows,
                 chosen.positions.size(), rows_max_);
  const void* const positions = copies_->find(std::as_bytes(chosen.positions));
  LOCKSTEP_CHECK(positions != nullptr || chosen.rows == 0, "positions of {} rows for all members, outside of graph inputs", chosen.rows);
  auto& on = static_cast<CudaStream&>(stream);
  std::byte* const block = own_block(chosen.rows);
  on.launched(launch_pack_rows(on.native(), {.x = chosen.x, .expert_ids = chosen.expert_ids, .rows = static_cast<int>(chosen.rows), .top_k = top_k_},
                               static_cast<const std::int32_t*>(positions), hidden_,
                               {.rows = reinterpret_cast<BFloat16*>(block), .expert_ids = reinterpret_cast<std::int32_t*>(block + id_offset(chosen.rows))}),
              "pack_rows");
  return {.send = block, .receive = gathered_.as<std::byte>(), .bytes = gathered_bytes(chosen.rows)};
}

MemberBlocks CudaLocalExperts::compute_gathered(Stream& stream, std::size_t layer, std::int64_t rows) {
  const std::byte* const blocks = gathered_.as<std::byte>();
  const std::size_t bytes = gathered_bytes(rows);
  run(static_cast<CudaStream&>(stream), layer,
      {.x = reinterpret_cast<const BFloat16*>(blocks),
       .x_stride = static_cast<std::int64_t>(bytes / sizeof(BFloat16)),
       .expert_ids = reinterpret_cast<const std::int32_t*>(blocks + id_offset(rows)),
       .id_stride = static_cast<std::int64_t>(bytes / sizeof(std::int32_t)),
       .local_index = local_index_.as<std::int32_t>(),
       .members = static_cast<int>(members_),
       .rows = static_cast<int>(rows),
       .top_k = top_k_,
       .expert_count = static_cast<int>(expert_count_)});
  return {.send = returned_.as<std::byte>(), .receive = received_.as<std::byte>(), .bytes = returned_bytes(rows)};
}

void CudaLocalExperts::weigh(Stream& stream, const ChosenExperts& chosen, float* out) {
  weigh_returned(static_cast<CudaStream&>(stream),
                 {.returned = received_.as<BFloat16>(),
                  .member_stride = static_cast<std::int64_t>(returned_bytes(chosen.rows) / sizeof(BFloat16)),
                  .expert_ids = reinterpret_cast<const std::int32_t*>(own_block(chosen.rows) + id_offset(chosen.rows))},
                 chosen, out);
}

void CudaLocalExperts::weigh_returned(CudaStream& on, ReturnedRows returned, const ChosenExperts& chosen, float* out) {
  returned.computed_by = computed_by_.as<std::int32_t>();
  returned.weights = chosen.weights;
  returned.rows = static_cast<int>(chosen.rows);
  returned.top_k = top_k_;
  on.launched(launch_weigh_returned(on.native(), returned, hidden_, out), "weigh_returned");
}

}  // namespace lockstep::device::cuda
