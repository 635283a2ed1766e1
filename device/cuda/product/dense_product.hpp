// DenseProduct: out = x * weight^T by cuBLASLt, bfloat16 in, float32 sums and out.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "device/cuda/memory/device_memory.hpp"
#include "device/cuda/product/blas_library.hpp"
#include "device/cuda/streams/cuda_stream.hpp"
#include "lockstep/core/bfloat16.hpp"

namespace lockstep::device::cuda {

struct DenseProductOptions {
  bool batch_invariant = false;         ///< a row's bits do not depend on the number of rows
  std::size_t workspace_bytes_max = 0;  ///< for each stream that computes products; 0: algorithms that need one are not used
};

/// Shapes and the algorithm of each. A shape is (inputs, outputs); its rows fall into buckets 1, 2, 3..4, 5..8 and so on, each with its own algorithm; with
/// batch_invariant there is one for all.
/// Threads  one at a time.
class DenseProduct {
 public:
  /// Errors  the library's.
  [[nodiscard]] static Result<std::unique_ptr<DenseProduct>> create(std::shared_ptr<const CudaContext> context, DeviceMemory& memory,
                                                                    std::shared_ptr<const BlasLibrary> library, const DenseProductOptions& options);

  /// Asks for the algorithms of a shape for up to `rows_max` rows, and allocates workspaces. A shape that the library has none for is noted as such.
  [[nodiscard]] Status prepare(std::int64_t inputs, std::int64_t outputs, std::int64_t rows_max);

  struct Operands {
    const BFloat16* x = nullptr;       ///< [rows, inputs], from the beginning of a buffer or of a row in it
    const BFloat16* weight = nullptr;  ///< [outputs, inputs], a buffer's beginning
    float* out = nullptr;              ///< [rows, outputs], from the beginning of a buffer or of a row in it
    std::int64_t rows = 0;
    std::int64_t inputs = 0;
    std::int64_t outputs = 0;
  };
  /// Enqueues the product; false: the library has no algorithm for the shape. What failed is the stream's failure.
  /// Cost  no allocation for what is prepared, but for the first product of a third stream.
  [[nodiscard]] bool run(CudaStream& stream, const Operands& operands);

 private:
  template <typename Descriptor>
  using Owned = std::unique_ptr<Descriptor, cublasStatus_t (*)(Descriptor*)>;
  using Layout = Owned<cublasLtMatrixLayoutOpaque_t>;

  struct Algorithm {
    std::int64_t rows_max = 0;
    bool found = false;
    std::size_t workspace_bytes = 0;
    cublasLtMatmulAlgo_t algorithm{};
  };
  /// As the library has it, column by column: out^T [outputs, rows] = weight [inputs, outputs]^T * x^T [inputs, rows].
  struct Shape {
    std::int64_t inputs = 0;
    std::int64_t outputs = 0;
    Layout weight;
    Layout x;
    Layout out;
    std::vector<Algorithm> algorithms;  ///< by ascending rows_max
  };
  struct Workspace {
    std::uint64_t stream = 0;  ///< its id; 0: nobody's yet
    Buffer memory;
  };

  DenseProduct(std::shared_ptr<const CudaContext> context, DeviceMemory& memory, std::shared_ptr<const BlasLibrary> library,
               const DenseProductOptions& options);
  [[nodiscard]] Status open();
  [[nodiscard]] Status set_preference(const Shape& shape) const;
  [[nodiscard]] Result<Shape*> shape_of(std::int64_t inputs, std::int64_t outputs);
  [[nodiscard]] Result<Layout> make_layout(cudaDataType_t type, std::int64_t rows, std::int64_t columns) const;
  [[nodiscard]] Status set_rows(const Shape& shape, std::int64_t rows) const;
  /// The algorithm for so many rows, asked for where it is not known.
  [[nodiscard]] Result<const Algorithm*> algorithm_for(Shape& shape, std::int64_t rows);
  /// For `rows` rows, and to do for `rows_min` as well.
  [[nodiscard]] Result<Algorithm> ask(const Shape& shape, std::int64_t rows, std::int64_t rows_min) const;
  [[nodiscard]] bool is_usable(const cublasLtMatmulHeuristicResult_t& found) const;
  [[nodiscard]] Status provide_workspaces(std::size_t bytes);
  [[nodiscard]] Result<void*> workspace_of(const CudaStream& stream);
  [[nodiscard]] Result<bool> enqueue(CudaStream& stream, const Operands& operands);

  const std::shared_ptr<const CudaContext> context_;
  DeviceMemory* memory_;
  const std::shared_ptr<const BlasLibrary> library_;
  const DenseProductOptions options_;
  Owned<cublasLtMatmulDescOpaque_t> operation_;
  Owned<cublasLtMatmulPreferenceOpaque_t> preference_;
  std::map<std::pair<std::int64_t, std::int64_t>, Shape> shapes_;  ///< by (inputs, outputs)
  std::size_t workspace_bytes_ = 0;                                ///< the most that an algorithm so far needs
  std::vector<Workspace> workspaces_;
  std::vector<Buffer> outgrown_;  ///< products may still be using them
};

}  // namespace lockstep::device::cuda
