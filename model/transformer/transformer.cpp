#include "lockstep/model/transformer.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "lockstep/core/check.hpp"
#include "lockstep/device/local_experts.hpp"
#include "model/transformer/host_access.hpp"
#include "model/transformer/layer_weights.hpp"

namespace lockstep::model {

namespace {

using device::Buffer;

/// Activations of one micro-batch; all sized for rows_max.
struct MicroBatchBuffers {
  Buffer hidden;         ///< float [rows, hidden]: the residual stream
  Buffer qkv;            ///< float [rows, (query_heads + 2 * kv_heads) * head size]
  Buffer query;          ///< float [rows, query_heads * head size]
  Buffer attended;       ///< BFloat16, as query
  Buffer projected;      ///< float [rows, hidden]
  Buffer router_logits;  ///< float [rows, experts]
  // What the host reads: the exchange is its affair, and so is pooling.
  ReadableBuffer normalized;      ///< BFloat16 [rows, hidden]: input of the next product, and what the exchange sends
  ReadableBuffer expert_ids;      ///< int32 [rows, top_k]
  ReadableBuffer expert_weights;  ///< float [rows, top_k]
};

/// Scratch of the feed-forward products, shared by micro-batches: their experts run one after the other on the compute stream.
struct FeedForwardBuffers {
  Buffer gate_up;    ///< float [rows, 2 * width]
  Buffer activated;  ///< BFloat16 [rows, width]
  Buffer down;       ///< float [rows, hidden]
  Buffer exchanged;  ///< BFloat16 [rows, hidden]: what came from the exchange or goes to it; nothing where the ops can work on the exchange's own memory
};

class StagedTransformer final : public Transformer {
 public:
  StagedTransformer(const ModelConfig& config, const TransformerOptions& options, std::unique_ptr<device::Ops> ops, ModelWeights weights)
      : config_(config), options_(options), ops_(std::move(ops)), weights_(std::move(weights)) {
    const device::KvCacheSpec spec{.kv_heads = config.kv_heads, .head_size = config.head_size};
    kv_cache_specs_.assign(static_cast<std::size_t>(config.layer_count), spec);
    shape_ = {.query_heads = config.query_heads, .kv_heads = config.kv_heads, .head_size = config.head_size, .rms_norm_epsilon = config.rms_norm_epsilon};
    router_ = {.expert_count = config.expert_count, .top_k = config.experts_per_token, .normalize_top_k = config.normalize_top_k};
  }

  Status allocate(device::Device& device);

  std::span<const device::KvCacheSpec> kv_cache_specs() const override { return kv_cache_specs_; }
  const std::string& layer_name(std::int32_t layer) const override { return weights_.layers[static_cast<std::size_t>(layer)].name; }
  bool is_sparse(std::int32_t layer) const override { return weights_.layers[static_cast<std::size_t>(layer)].sparse; }
  bool has_local_experts() const override { return local_experts_ != nullptr; }
  Status warm_up() override;
  void embed(std::int32_t micro_batch, device::Stream& stream) override;
  void attention(std::int32_t micro_batch, std::int32_t layer, const device::KvCacheLayer& cache, device::Stream& stream) override;
  void dense(std::int32_t micro_batch, std::int32_t layer, device::Stream& stream) override;
  void route(std::int32_t micro_batch, std::int32_t layer, device::Stream& stream) override;
  std::span<const BFloat16> routed_rows(std::int32_t micro_batch) const override;
  std::span<const std::int32_t> routed_experts(std::int32_t micro_batch) const override;
  std::span<const float> routed_weights(std::int32_t micro_batch) const override;
  Status local_experts(std::int32_t micro_batch, std::int32_t layer, device::Stream& stream, comm::DeviceCollectives* group, const Deadline& deadline) override;
  std::size_t local_experts_sent_bytes(std::int32_t rows) const override { return local_experts_ ? local_experts_->sent_bytes(rows) : 0; }
  void bring_routed(std::int32_t micro_batch, device::Stream& stream) override;
  void experts(std::int32_t layer, const comm::ReceivedRows& received, std::span<BFloat16> outputs, device::Stream& stream) override;
  void combine(std::int32_t micro_batch, std::span<const BFloat16> expert_rows, device::Stream& stream) override;
  void combine_sums(std::int32_t micro_batch, std::span<const BFloat16> sums, device::Stream& stream) override;
  void head(std::int32_t micro_batch, std::span<const std::int32_t> rows, std::int32_t first_logit_row, device::Stream& stream) override;
  void normalize(std::int32_t micro_batch, device::Stream& stream) override;
  void head_of_normalized(std::int32_t micro_batch, std::int32_t first_row, std::int32_t count, device::Stream& stream) override;
  std::int32_t logit_rows_max() const override { return options_.logit_rows_max; }
  std::span<const BFloat16> normalized_row(std::int32_t micro_batch, std::int32_t row) const override {
    const auto hidden = static_cast<std::size_t>(config_.hidden_size);
    return {buffers(micro_batch).normalized.on_host<BFloat16>() + static_cast<std::size_t>(row) * hidden, hidden};
  }
  std::span<const float> logits(std::int32_t logit_row) const override {
    const auto vocabulary = static_cast<std::size_t>(config_.vocabulary_size);
    return {logits_.on_host<float>() + static_cast<std::size_t>(logit_row) * vocabulary, vocabulary};
  }
  bool samples_on_device() const override { return token_sampler_ != nullptr; }
  void sample(const TokenChoiceList& list, device::Stream& stream) override;
  std::span<const std::int32_t> sampled_tokens() const override { return {tokens_.on_host<std::int32_t>(), tokens_sampled_}; }
  void bring_logits(std::int32_t first, std::int32_t count, device::Stream& stream) override {
    logits_.bring<float>(*ops_, stream, std::int64_t{first} * config_.vocabulary_size, std::int64_t{count} * config_.vocabulary_size);
  }

 private:
  /// The rows of the current micro-batch.
  [[nodiscard]] const BatchMetadata& batch(std::int32_t layer) const {
    return static_cast<const BatchMetadata&>(get_forward_context().get_attn_metadata(layer_name(layer)));  // the engine sets nothing else
  }
  [[nodiscard]] MicroBatchBuffers& buffers(std::int32_t micro_batch) { return micro_batches_[static_cast<std::size_t>(micro_batch)]; }
  [[nodiscard]] const MicroBatchBuffers& buffers(std::int32_t micro_batch) const { return micro_batches_[static_cast<std::size_t>(micro_batch)]; }
  /// Rows of the exchange where ops can read them: as they are, or copied to the device.
  [[nodiscard]] const BFloat16* to_device(std::span<const BFloat16> rows, device::Stream& stream);
  /// Null where rows always go to their experts by an exchange.
  [[nodiscard]] Result<std::unique_ptr<device::LocalExperts>> make_local_experts();
  [[nodiscard]] std::int64_t current_rows() const { return get_forward_context().get_num_tokens(); }

  ModelConfig config_;
  TransformerOptions options_;
  std::unique_ptr<device::Ops> ops_;
  ModelWeights weights_;
  std::vector<device::KvCacheSpec> kv_cache_specs_;
  device::AttentionShape shape_;
  device::Router router_;
  std::vector<MicroBatchBuffers> micro_batches_;
  FeedForwardBuffers feed_forward_;
  std::unique_ptr<device::LocalExperts> local_experts_;  ///< null where rows always go to their experts by an exchange
  Buffer ones_;                                          ///< float [rows, top_k]: weights of rows that are weighed already
  Buffer rotation_;                                      ///< float [positions, head size]: cosines, then sines
  Buffer head_rows_;                                     ///< float [logit rows, hidden]
  Buffer head_input_;                                    ///< BFloat16 [logit rows, hidden]
  ReadableBuffer logits_;                                ///< float [logit rows, vocabulary]
  // Where the device samples.
  device::TokenSampler* token_sampler_ = nullptr;  ///< of ops_; null: the host samples
  Buffer choices_;                                 ///< TokenChoice [logit rows] at most, then LogitChange [kLogitChangesMax]
  Buffer choices_on_host_;
  ReadableBuffer tokens_;  ///< std::int32_t [logit rows]
  std::size_t tokens_sampled_ = 0;
  bool in_place_ = true;  ///< ops work on the exchange's own memory: it is the device's, or both are the host's
};

/// Rows of the rotary table in double precision: position * theta^(-2i / head size) loses its fraction in float32 at large positions.
void write_rotation(double theta, std::int32_t head_size, std::int64_t first_position, std::int64_t positions, float* to) {
  const std::int32_t half = head_size / 2;
  for (std::int64_t position = first_position; position < first_position + positions; ++position) {
    float* row = to + (position - first_position) * head_size;
    for (std::int32_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * std::pow(theta, -2.0 * i / head_size);
      row[i] = static_cast<float>(std::cos(angle));
      row[half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

/// Who computes what for whom, as tables.
device::ExpertShares shares_of(const comm::GroupView& view, const comm::Placement& placement) {
  device::ExpertShares shares{.members = view.size(), .me = view.my_index};
  for (std::int32_t member = 0; member < view.size(); ++member) {
    for (int expert = 0; expert < placement.expert_count(); ++expert) {
      const bool mine = placement.serving_member(expert, member) == view.my_index;
      shares.local_index.push_back(mine ? placement.local_index(expert, view.my_index) : -1);
    }
  }
  for (int expert = 0; expert < placement.expert_count(); ++expert) {
    shares.computed_by.push_back(placement.serving_member(expert, view.my_index));
  }
  return shares;
}

Status StagedTransformer::allocate(device::Device& device) {
  in_place_ = device.host_memory() || options_.rows_stay_on_device;
  const auto allocate_into = [&device](Buffer& buffer, std::int64_t elements, std::size_t element_bytes) -> Status {
    LOCKSTEP_ASSIGN_OR_RETURN(buffer, device.allocate(static_cast<std::size_t>(elements) * element_bytes));
    return {};
  };
  const auto allocate_readable = [&device](ReadableBuffer& buffer, std::int64_t elements, std::size_t element_bytes) -> Status {
    LOCKSTEP_ASSIGN_OR_RETURN(buffer, ReadableBuffer::create(device, static_cast<std::size_t>(elements) * element_bytes));
    return {};
  };
  const std::int64_t rows = options_.rows_max;
  const std::int64_t hidden = config_.hidden_size;
  const std::int64_t query_width = std::int64_t{config_.query_heads} * config_.head_size;
  const std::int64_t qkv_width = query_width + std::int64_t{2} * config_.kv_heads * config_.head_size;
  micro_batches_.resize(static_cast<std::size_t>(options_.micro_batches_max));
  for (MicroBatchBuffers& buffers : micro_batches_) {
    LOCKSTEP_RETURN_IF_ERROR(allocate_into(buffers.hidden, rows * hidden, sizeof(float)));
    LOCKSTEP_RETURN_IF_ERROR(allocate_readable(buffers.normalized, rows * hidden, sizeof(BFloat16)));
    LOCKSTEP_RETURN_IF_ERROR(allocate_into(buffers.qkv, rows * qkv_width, sizeof(float)));
    LOCKSTEP_RETURN_IF_ERROR(allocate_into(buffers.query, rows * query_width, sizeof(float)));
    LOCKSTEP_RETURN_IF_ERROR(allocate_into(buffers.attended, rows * query_width, sizeof(BFloat16)));
    LOCKSTEP_RETURN_IF_ERROR(allocate_into(buffers.projected, rows * hidden, sizeof(float)));
    LOCKSTEP_RETURN_IF_ERROR(allocate_into(buffers.router_logits, rows * config_.expert_count, sizeof(float)));
    LOCKSTEP_RETURN_IF_ERROR(allocate_readable(buffers.expert_ids, rows * config_.experts_per_token, sizeof(std::int32_t)));
    LOCKSTEP_RETURN_IF_ERROR(allocate_readable(buffers.expert_weights, rows * config_.experts_per_token, sizeof(float)));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(local_experts_, make_local_experts());
  const bool exchanges = !local_experts_ || options_.view->size() > 1;
  const std::int64_t experts_per_row = !exchanges ? 0 : std::min<std::int64_t>(config_.experts_per_token, std::ssize(options_.local_experts));
  const std::int64_t expert_rows = options_.group_rows_max * experts_per_row;
  const std::int64_t gate_up = std::max(expert_rows * 2 * config_.expert_width, rows * 2 * config_.dense_width);
  const std::int64_t down_rows = std::max(expert_rows, rows);
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(feed_forward_.gate_up, gate_up, sizeof(float)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(feed_forward_.activated, gate_up / 2, sizeof(BFloat16)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(feed_forward_.down, down_rows * hidden, sizeof(float)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(head_rows_, options_.logit_rows_max * hidden, sizeof(float)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(head_input_, options_.logit_rows_max * hidden, sizeof(BFloat16)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_readable(logits_, std::int64_t{options_.logit_rows_max} * config_.vocabulary_size, sizeof(float)));
  token_sampler_ = ops_->token_sampler();
  if (token_sampler_ != nullptr) {
    const std::size_t bytes = static_cast<std::size_t>(options_.logit_rows_max) * sizeof(device::TokenChoice) + kLogitChangesMax * sizeof(device::LogitChange);
    LOCKSTEP_RETURN_IF_ERROR(allocate_into(choices_, static_cast<std::int64_t>(bytes), 1));
    LOCKSTEP_ASSIGN_OR_RETURN(choices_on_host_, device.allocate_host(bytes));
    LOCKSTEP_RETURN_IF_ERROR(allocate_readable(tokens_, options_.logit_rows_max, sizeof(std::int32_t)));
  }
  if (!in_place_) {
    const std::int64_t exchanged_rows = std::max(expert_rows, rows * config_.experts_per_token);
    LOCKSTEP_RETURN_IF_ERROR(allocate_into(feed_forward_.exchanged, exchanged_rows * hidden, sizeof(BFloat16)));
  }
  LOCKSTEP_ASSIGN_OR_RETURN(
      rotation_, make_filled<float>(device, *ops_, options_.positions_max, config_.head_size, [this](std::int64_t first, std::int64_t count, float* to) {
        write_rotation(config_.rope_theta, config_.head_size, first, count, to);
      }));
  LOCKSTEP_ASSIGN_OR_RETURN(
      ones_, make_filled<float>(device, *ops_, rows, config_.experts_per_token,
                                [this](std::int64_t /*first*/, std::int64_t count, float* to) { std::fill_n(to, count * config_.experts_per_token, 1.0F); }));
  return {};
}

Result<std::unique_ptr<device::LocalExperts>> StagedTransformer::make_local_experts() {
  if (options_.rows_within_device_max == 0 || std::ranges::none_of(weights_.layers, &LayerWeights::sparse)) {
    return std::unique_ptr<device::LocalExperts>();
  }
  LOCKSTEP_CHECK(options_.view != nullptr && options_.placement != nullptr, "rows within {} devices without a placement", options_.rows_within_device_max);
  device::LocalExpertsOptions options{.shares = shares_of(*options_.view, *options_.placement),
                                      .hidden = config_.hidden_size,
                                      .width = config_.expert_width,
                                      .rows_max = options_.rows_within_device_max,
                                      .top_k = config_.experts_per_token};
  for (const LayerWeights& layer : weights_.layers) {
    options.layers.push_back(layer.sparse ? device::ExpertWeights{.gate_up = layer.gate_up, .down = layer.down} : device::ExpertWeights{});
  }
  return ops_->make_local_experts(options);
}

Status StagedTransformer::warm_up() {
  // Weights of one shape share what is prepared, so one of each is enough.
  std::vector<std::pair<const device::WeightHandle*, std::int64_t>> shapes{{&weights_.head, options_.logit_rows_max}};
  for (const LayerWeights& layer : weights_.layers) {
    shapes.emplace_back(&layer.qkv, options_.rows_max);
    shapes.emplace_back(&layer.attention_output, options_.rows_max);
    if (layer.sparse) {
      shapes.emplace_back(&layer.router, options_.rows_max);
    }
    if (!layer.gate_up.empty()) {
      const std::int64_t rows = layer.sparse ? options_.group_rows_max : options_.rows_max;
      shapes.emplace_back(&layer.gate_up.front(), rows);
      shapes.emplace_back(&layer.down.front(), rows);
    }
  }
  for (const auto& [weight, rows] : shapes) {
    LOCKSTEP_RETURN_IF_ERROR(ops_->prepare(*weight, rows));
  }
  return {};
}

void StagedTransformer::embed(std::int32_t micro_batch, device::Stream& stream) {
  const BatchMetadata& metadata = batch(0);
  LOCKSTEP_CHECK(metadata.rows.rows() <= options_.rows_max, "{} rows in a micro-batch, at most {}", metadata.rows.rows(), options_.rows_max);
  ops_->embed(stream, metadata.token_ids, weights_.embedding.as<BFloat16>(), config_.hidden_size, buffers(micro_batch).hidden.as<float>());
}

void StagedTransformer::attention(std::int32_t micro_batch, std::int32_t layer, const device::KvCacheLayer& cache, device::Stream& stream) {
  const device::PagedRows& rows = batch(layer).rows;
  const LayerWeights& weights = weights_.layers[static_cast<std::size_t>(layer)];
  MicroBatchBuffers& mine = buffers(micro_batch);
  const std::int64_t hidden = config_.hidden_size;
  ops_->rms_norm(stream, mine.hidden.as<float>(), weights.input_norm.as<float>(), config_.rms_norm_epsilon, rows.rows(), hidden,
                 mine.normalized.on_device<BFloat16>());
  ops_->matmul(stream, mine.normalized.on_device<BFloat16>(), weights.qkv, rows.rows(), mine.qkv.as<float>());
  ops_->qk_norm_rope_store(stream, shape_, rows, mine.qkv.as<float>(), weights.query_norm.as<float>(), weights.key_norm.as<float>(), rotation_.as<float>(),
                           cache, mine.query.as<float>());
  ops_->paged_attention(stream, shape_, rows, mine.query.as<float>(), cache, mine.attended.as<BFloat16>());
  ops_->matmul(stream, mine.attended.as<BFloat16>(), weights.attention_output, rows.rows(), mine.projected.as<float>());
  ops_->add(stream, mine.projected.as<float>(), rows.rows() * hidden, mine.hidden.as<float>());
  ops_->rms_norm(stream, mine.hidden.as<float>(), weights.post_norm.as<float>(), config_.rms_norm_epsilon, rows.rows(), hidden,
                 mine.normalized.on_device<BFloat16>());
}

void StagedTransformer::dense(std::int32_t micro_batch, std::int32_t layer, device::Stream& stream) {
  const std::int64_t rows = current_rows();
  const LayerWeights& weights = weights_.layers[static_cast<std::size_t>(layer)];
  MicroBatchBuffers& mine = buffers(micro_batch);
  ops_->matmul(stream, mine.normalized.on_device<BFloat16>(), weights.gate_up.front(), rows, feed_forward_.gate_up.as<float>());
  ops_->silu_mul(stream, feed_forward_.gate_up.as<float>(), rows, config_.dense_width, feed_forward_.activated.as<BFloat16>());
  ops_->matmul(stream, feed_forward_.activated.as<BFloat16>(), weights.down.front(), rows, feed_forward_.down.as<float>());
  ops_->add(stream, feed_forward_.down.as<float>(), rows * config_.hidden_size, mine.hidden.as<float>());
}

void StagedTransformer::route(std::int32_t micro_batch, std::int32_t layer, device::Stream& stream) {
  const std::int64_t rows = current_rows();
  const LayerWeights& weights = weights_.layers[static_cast<std::size_t>(layer)];
  MicroBatchBuffers& mine = buffers(micro_batch);
  ops_->matmul(stream, mine.normalized.on_device<BFloat16>(), weights.router, rows, mine.router_logits.as<float>());
  ops_->route(stream, router_, mine.router_logits.as<float>(), rows, mine.expert_ids.on_device<std::int32_t>(), mine.expert_weights.on_device<float>());
}

void StagedTransformer::bring_routed(std::int32_t micro_batch, device::Stream& stream) {
  const std::int64_t rows = current_rows();
  const MicroBatchBuffers& mine = buffers(micro_batch);
  mine.expert_ids.bring<std::int32_t>(*ops_, stream, 0, rows * config_.experts_per_token);
  if (!options_.rows_stay_on_device) {
    mine.normalized.bring<BFloat16>(*ops_, stream, 0, rows * config_.hidden_size);
    mine.expert_weights.bring<float>(*ops_, stream, 0, rows * config_.experts_per_token);
  }
}

std::span<const BFloat16> StagedTransformer::routed_rows(std::int32_t micro_batch) const {
  const ReadableBuffer& rows = buffers(micro_batch).normalized;
  return {options_.rows_stay_on_device ? rows.on_device<BFloat16>() : rows.on_host<BFloat16>(), static_cast<std::size_t>(current_rows() * config_.hidden_size)};
}

std::span<const std::int32_t> StagedTransformer::routed_experts(std::int32_t micro_batch) const {
  return {buffers(micro_batch).expert_ids.on_host<std::int32_t>(), static_cast<std::size_t>(current_rows() * config_.experts_per_token)};
}

const BFloat16* StagedTransformer::to_device(std::span<const BFloat16> rows, device::Stream& stream) {
  if (in_place_) {
    return rows.data();
  }
  auto* const to = feed_forward_.exchanged.as<BFloat16>();
  if (!rows.empty()) {
    ops_->upload(stream, rows.data(), rows.size_bytes(), to);
  }
  return to;
}

std::span<const float> StagedTransformer::routed_weights(std::int32_t micro_batch) const {
  return {buffers(micro_batch).expert_weights.on_host<float>(), static_cast<std::size_t>(current_rows() * config_.experts_per_token)};
}

Status StagedTransformer::local_experts(std::int32_t micro_batch, std::int32_t layer, device::Stream& stream, comm::DeviceCollectives* group,
                                        const Deadline& deadline) {
  MicroBatchBuffers& mine = buffers(micro_batch);
  const device::ChosenExperts chosen{.rows = current_rows(),
                                     .positions = batch(layer).rows.positions,
                                     .x = mine.normalized.on_device<BFloat16>(),
                                     .expert_ids = mine.expert_ids.on_device<std::int32_t>(),
                                     .weights = mine.expert_weights.on_device<float>()};
  if (group == nullptr) {
    local_experts_->compute(stream, static_cast<std::size_t>(layer), chosen, mine.hidden.as<float>());
    return {};
  }
  const auto blocks_on = [&stream](const device::MemberBlocks& blocks) {
    return comm::DeviceBlocks{.stream = &stream, .send = blocks.send, .receive = blocks.receive, .bytes = blocks.bytes};
  };
  LOCKSTEP_RETURN_IF_ERROR(group->all_gather(blocks_on(local_experts_->pack(stream, chosen)), deadline));
  LOCKSTEP_RETURN_IF_ERROR(group->all_to_all(blocks_on(local_experts_->compute_gathered(stream, static_cast<std::size_t>(layer), chosen.rows)), deadline));
  local_experts_->weigh(stream, chosen, mine.hidden.as<float>());
  return {};
}

void StagedTransformer::experts(std::int32_t layer, const comm::ReceivedRows& received, std::span<BFloat16> outputs, device::Stream& stream) {
  const LayerWeights& weights = weights_.layers[static_cast<std::size_t>(layer)];
  const std::int64_t rows = received.offsets.back();
  const BFloat16* const input = to_device(received.rows, stream);
  ops_->grouped_matmul(stream, input, {.offsets = received.offsets, .weights = weights.gate_up}, feed_forward_.gate_up.as<float>());
  ops_->silu_mul(stream, feed_forward_.gate_up.as<float>(), rows, config_.expert_width, feed_forward_.activated.as<BFloat16>());
  ops_->grouped_matmul(stream, feed_forward_.activated.as<BFloat16>(), {.offsets = received.offsets, .weights = weights.down}, feed_forward_.down.as<float>());
  BFloat16* const output = in_place_ ? outputs.data() : feed_forward_.exchanged.as<BFloat16>();
  ops_->to_bfloat16(stream, feed_forward_.down.as<float>(), rows * config_.hidden_size, output);
  if (!in_place_ && !outputs.empty()) {
    ops_->download(stream, output, outputs.size_bytes(), outputs.data());
  }
}

void StagedTransformer::combine(std::int32_t micro_batch, std::span<const BFloat16> expert_rows, device::Stream& stream) {
  MicroBatchBuffers& mine = buffers(micro_batch);
  ops_->weigh_and_sum(stream, to_device(expert_rows, stream), mine.expert_weights.on_device<float>(), current_rows(), config_.experts_per_token,
                      config_.hidden_size, mine.hidden.as<float>());
}

void StagedTransformer::combine_sums(std::int32_t micro_batch, std::span<const BFloat16> sums, device::Stream& stream) {
  const std::int64_t rows = current_rows();
  if (rows == 0) {
    return;
  }
  const std::int64_t sums_per_row = std::ssize(sums) / (rows * config_.hidden_size);
  LOCKSTEP_CHECK(sums_per_row >= 1 && sums_per_row <= config_.experts_per_token, "{} values for {} rows of {}", sums.size(), rows, config_.hidden_size);
  ops_->weigh_and_sum(stream, to_device(sums, stream), ones_.as<float>(), rows, static_cast<int>(sums_per_row), config_.hidden_size,
                      buffers(micro_batch).hidden.as<float>());
}

void StagedTransformer::head(std::int32_t micro_batch, std::span<const std::int32_t> rows, std::int32_t first_logit_row, device::Stream& stream) {
  const auto count = static_cast<std::int64_t>(rows.size());
  const std::int64_t first = first_logit_row;
  LOCKSTEP_CHECK(first + count <= options_.logit_rows_max, "{} logit rows from {}, at most {}", count, first, options_.logit_rows_max);
  ops_->gather_rows(stream, buffers(micro_batch).hidden.as<float>(), rows, config_.hidden_size, head_rows_.as<float>());
  ops_->rms_norm(stream, head_rows_.as<float>(), weights_.final_norm.as<float>(), config_.rms_norm_epsilon, count, config_.hidden_size,
                 head_input_.as<BFloat16>());
  ops_->matmul(stream, head_input_.as<BFloat16>(), weights_.head, count, logits_.on_device<float>() + first * config_.vocabulary_size);
}

void StagedTransformer::sample(const TokenChoiceList& list, device::Stream& stream) {
  const std::span<const std::byte> choices = std::as_bytes(list.choices());
  const std::span<const std::byte> changes = std::as_bytes(list.changes());
  LOCKSTEP_CHECK(std::ssize(list.choices()) <= options_.logit_rows_max && list.changes().size() <= kLogitChangesMax,
                 "{} choices with {} changes, at most {}, {}", list.choices().size(), list.changes().size(), options_.logit_rows_max, kLogitChangesMax);
  tokens_sampled_ = list.choices().size();
  if (tokens_sampled_ == 0) {
    return;
  }
  auto* const packed = choices_on_host_.as<std::byte>();
  std::ranges::copy(choices, packed);
  std::ranges::copy(changes, packed + choices.size());
  ops_->upload(stream, packed, choices.size() + changes.size(), choices_.as<std::byte>());
  token_sampler_->sample(stream,
                         {.logits = logits_.on_device<float>(),
                          .vocabulary = config_.vocabulary_size,
                          .choices = choices_.as<device::TokenChoice>(),
                          .count = std::ssize(list.choices()),
                          .changes = reinterpret_cast<const device::LogitChange*>(choices_.as<std::byte>() + choices.size())},
                         tokens_.on_device<std::int32_t>());
  tokens_.bring<std::int32_t>(*ops_, stream, 0, std::ssize(list.choices()));
}

void StagedTransformer::normalize(std::int32_t micro_batch, device::Stream& stream) {
  MicroBatchBuffers& mine = buffers(micro_batch);
  ops_->rms_norm(stream, mine.hidden.as<float>(), weights_.final_norm.as<float>(), config_.rms_norm_epsilon, current_rows(), config_.hidden_size,
                 mine.normalized.on_device<BFloat16>());
  mine.normalized.bring<BFloat16>(*ops_, stream, 0, current_rows() * config_.hidden_size);
}

void StagedTransformer::head_of_normalized(std::int32_t micro_batch, std::int32_t first_row, std::int32_t count, device::Stream& stream) {
  LOCKSTEP_CHECK(first_row + count <= options_.rows_max && count <= options_.logit_rows_max, "{} logit rows from row {}, at most {} from {}", count, first_row,
                 options_.logit_rows_max, options_.rows_max);
  const BFloat16* input = buffers(micro_batch).normalized.on_device<BFloat16>() + std::int64_t{first_row} * config_.hidden_size;
  ops_->matmul(stream, input, weights_.head, count, logits_.on_device<float>());
  logits_.bring<float>(*ops_, stream, 0, std::int64_t{count} * config_.vocabulary_size);
}

}  // namespace

Result<std::unique_ptr<Transformer>> Transformer::load(const ModelConfig& config, WeightSource& source, device::Device& device,
                                                       const TransformerOptions& options, const Watch* watch) {
  LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<device::Ops> ops, device.make_ops());
  WeightLoader loader(config, source, device, *ops, watch, options.memory_probe);
  LOCKSTEP_ASSIGN_OR_RETURN(ModelWeights weights, loader.load(options.local_experts));
  auto transformer = std::make_unique<StagedTransformer>(config, options, std::move(ops), std::move(weights));
  LOCKSTEP_RETURN_IF_ERROR(transformer->allocate(device));
  return std::unique_ptr<Transformer>(std::move(transformer));
}

}  // namespace lockstep::model
