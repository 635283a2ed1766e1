#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lockstep/core/hash.hpp"
#include "lockstep/model/weights.hpp"
#include "model/files/mapped_file.hpp"
#include "model/files/safetensors_header.hpp"
#include "model/json/json_node.hpp"

namespace lockstep::model {

namespace {

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr std::size_t kIndexBytesMax = 64U << 20U;
constexpr std::size_t kShardsMax = 4096;
constexpr std::size_t kSampledTensors = 512;
constexpr std::size_t kSampleBytes = 256;

std::optional<device::DataType> float_type(std::string_view name) {
  if (name == "BF16") {
    return device::DataType::kBFloat16;
  }
  if (name == "F16") {
    return device::DataType::kFloat16;
  }
  if (name == "F32") {
    return device::DataType::kFloat32;
  }
  return std::nullopt;
}

/// One mapped file and its checked header.
struct Shard {
  std::string path;
  MappedFile file;
  SafetensorsHeader header;
};

Result<Shard> open_shard(const std::filesystem::path& path) {
  LOCKSTEP_ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path));
  LOCKSTEP_ASSIGN_OR_RETURN(SafetensorsHeader header, read_safetensors_header(file.bytes(), path.string()));
  return Shard{path.string(), std::move(file), std::move(header)};
}

class SafetensorsSource final : public WeightSource {
 public:
  /// Errors  kInvalidArgument: two shards hold one tensor.
  static Result<std::unique_ptr<SafetensorsSource>> create(std::vector<Shard> shards) {
    auto source = std::unique_ptr<SafetensorsSource>(new SafetensorsSource(std::move(shards)));
    for (const Shard& shard : source->shards_) {
      for (const SafetensorsEntry& entry : shard.header.entries) {
        const auto [found, added] = source->tensors_.try_emplace(entry.name, Location{&shard, &entry});
        if (!added) {
          return Error{ErrorCode::kInvalidArgument,
                       fmt::format("tensor \"{}\" is in {} and in {}, expected in one shard only", entry.name, found->second.shard->path, shard.path)};
        }
      }
    }
    return source;
  }

  [[nodiscard]] Result<TensorView> tensor(std::string_view name, std::span<const std::int64_t> expected_shape) override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: tensor \"{}\" is missing, expected one of shape [{}]", place(), name, fmt::join(expected_shape, ", "))};
    }
    const auto [shard, entry] = found->second;
    if (!std::ranges::equal(entry->shape, expected_shape)) {
      return Error{ErrorCode::kInvalidArgument, fmt::format("{}: tensor \"{}\" has shape [{}], expected [{}] by config.json", shard->path, name,
                                                            fmt::join(entry->shape, ", "), fmt::join(expected_shape, ", "))};
    }
    const std::optional<device::DataType> type = float_type(entry->type.name);
    if (!type) {
      return Error{ErrorCode::kUnsupported, fmt::format("{}: tensor \"{}\" has dtype {}, expected BF16, F16 or F32", shard->path, name, entry->type.name)};
    }
    return TensorView{.type = *type,
                      .shape = entry->shape,
                      .data = shard->file.bytes().subspan(static_cast<std::size_t>(entry->begin), static_cast<std::size_t>(entry->end - entry->begin))};
  }

  [[nodiscard]] Status check(std::string_view name, std::span<const std::int64_t> expected_shape) override {
    LOCKSTEP_RETURN_IF_ERROR(tensor(name, expected_shape));  // finding a tensor touches no page of it
    return {};
  }

  void will_need(std::string_view name) override { MappedFile::will_need(bytes_of(name)); }
  void done_with(std::string_view name) override { MappedFile::done_with(bytes_of(name)); }

  [[nodiscard]] std::uint64_t hash() const override {
    std::uint64_t result = fnv1a("safetensors");
    for (const Shard& shard : shards_) {
      result = fnv1a(fmt::format(";{};", shard.file.bytes().size()), result);
      result = fnv1a(shard.header.text, result);
    }
    return hash_samples(result);
  }

 private:
  /// Sizes and headers do not tell a model from its fine-tuned one, and a group of both would answer with a mixture of the two: so a few bytes from the middle
  /// of tensors spread over the model are hashed as well. Each costs a page from the disk, which bounds their number.
  [[nodiscard]] std::uint64_t hash_samples(std::uint64_t result) const {
    std::size_t count = 0;
    for (const Shard& shard : shards_) {
      count += shard.header.entries.size();
    }
    const std::size_t stride = count / kSampledTensors + 1;
    std::size_t position = 0;
    for (const Shard& shard : shards_) {
      for (const SafetensorsEntry& entry : shard.header.entries) {
        if (position++ % stride != 0) {
          continue;
        }
        const auto bytes = shard.file.bytes().subspan(static_cast<std::size_t>(entry.begin), static_cast<std::size_t>(entry.end - entry.begin));
        const auto sample = bytes.subspan(bytes.size() / 2, std::min(kSampleBytes, bytes.size() - bytes.size() / 2));
        result = fnv1a(std::string_view(reinterpret_cast<const char*>(sample.data()), sample.size()), result);
      }
    }
    return result;
  }

  struct Location {
    const Shard* shard;
    const SafetensorsEntry* entry;
  };

  /// Nothing of an unknown tensor.
  [[nodiscard]] std::span<const std::byte> bytes_of(std::string_view name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      return {};
    }
    const auto& [shard, entry] = found->second;
    return shard->file.bytes().subspan(static_cast<std::size_t>(entry->begin), static_cast<std::size_t>(entry->end - entry->begin));
  }

  explicit SafetensorsSource(std::vector<Shard> shards) : shards_(std::move(shards)) {}

  [[nodiscard]] std::string place() const {
    return shards_.size() == 1 ? shards_.front().path : fmt::format("{} and {} more", shards_.front().path, shards_.size() - 1);
  }

  std::vector<Shard> shards_;                                 // in order of file name; never changed: tensors_ points into it
  std::unordered_map<std::string_view, Location> tensors_{};  // names borrowed from the entries
};

/// A shard's name as the index gives it, as a file of the model's folder. Anything else could make the daemon read files outside of it.
Status check_shard_name(const JsonNode& node, std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string_view("/\\\0", 3)) != std::string_view::npos) {
    return node.wrong("the name of a file in the same folder");
  }
  return {};
}

/// The index's weight_map: shard name to the tensors that it must hold. Ordered, so that every rank hashes the shards in one order.
Result<std::map<std::string, std::vector<std::string>>> read_index(const std::filesystem::path& path) {
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonDocument document, read_json_file(path, kIndexBytesMax));
  LOCKSTEP_ASSIGN_OR_RETURN(const JsonNode node, JsonNode(document).at("weight_map"));
  const boost::json::object* map = node.value().if_object();
  if (map == nullptr || map->empty()) {
    return node.wrong("an object from tensor names to file names");
  }
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, value] : *map) {
    const JsonNode entry(value, document.file, fmt::format("weight_map.{}", std::string_view(tensor.data(), tensor.size())));
    LOCKSTEP_ASSIGN_OR_RETURN(const std::string_view shard, entry.string());
    LOCKSTEP_RETURN_IF_ERROR(check_shard_name(entry, shard));
    shards[std::string(shard)].emplace_back(tensor.data(), tensor.size());
    if (shards.size() > kShardsMax) {
      return node.wrong(fmt::format("at most {} shards", kShardsMax));
    }
  }
  return shards;
}

Result<std::vector<Shard>> open_shards(const std::filesystem::path& folder) {
  LOCKSTEP_ASSIGN_OR_RETURN(const auto index, read_index(folder / kIndexFile));
  std::vector<Shard> shards;
  shards.reserve(index.size());
  for (const auto& [name, tensors] : index) {
    LOCKSTEP_ASSIGN_OR_RETURN(Shard shard, open_shard(folder / name));
    for (const std::string& tensor : tensors) {
      if (!std::ranges::binary_search(shard.header.entries, tensor, {}, &SafetensorsEntry::name)) {
        return Error{ErrorCode::kInvalidArgument, fmt::format("{}: tensor \"{}\" is missing, expected here by {}", shard.path, tensor, kIndexFile)};
      }
    }
    shards.push_back(std::move(shard));
  }
  return shards;
}

}  // namespace

Result<std::unique_ptr<WeightSource>> open_safetensors(const std::filesystem::path& folder) {
  std::error_code code;
  std::vector<Shard> shards;
  // The single file first, as the reference does where a folder has both.
  if (std::filesystem::exists(folder / kSingleFile, code)) {
    LOCKSTEP_ASSIGN_OR_RETURN(Shard shard, open_shard(folder / kSingleFile));
    shards.push_back(std::move(shard));
  } else if (std::filesystem::exists(folder / kIndexFile, code)) {
    LOCKSTEP_ASSIGN_OR_RETURN(shards, open_shards(folder));
  } else {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: has neither {} nor {}; --load-format dummy runs a config without weights", folder.string(), kSingleFile, kIndexFile)};
  }
  LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<WeightSource> source, SafetensorsSource::create(std::move(shards)));
  return source;
}

}  // namespace lockstep::model
