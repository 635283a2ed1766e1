// A folder that a test writes model files into, removed with the object.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace lockstep::model {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "lockstep-test-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(std::string_view name, std::string_view bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

/// A safetensors file: the header's length, the header, `data`.
inline std::string safetensors_file(std::string_view header, std::string_view data) {
  std::string file;
  for (unsigned shift = 0; shift < 64; shift += 8) {
    file.push_back(static_cast<char>(std::uint64_t{header.size()} >> shift & 0xffU));
  }
  return file.append(header).append(data);
}

}  // namespace lockstep::model
