#include "device/cuda/product/dense_product.hpp"

#include <algorithm>
#include <bit>
#include <numeric>
#include <span>

namespace lockstep::device::cuda {

namespace {

/// How many algorithms are asked for at once: the first that can be used is the fastest by the library's estimate.
constexpr int kAlgorithmsAsked = 8;
/// For so many rows the one algorithm of a shape is chosen: between a decode step's few and a prompt's thousands. A constant: it must be the same on all ranks.
constexpr std::int64_t kInvariantRows = 64;
constexpr std::int64_t kAnyRows = std::numeric_limits<std::int64_t>::max();
/// What the pool's buffers are aligned to, and the most that the library makes use of.
constexpr std::int64_t kAlignment = 256;
/// Steps compute on two streams at most: one runs whole steps, one those in micro-batches.
constexpr std::size_t kStreamsExpected = 2;

/// Of the addresses of rows of so many bytes.
std::uint32_t row_alignment(std::int64_t row_bytes) {
  return static_cast<std::uint32_t>(std::gcd(row_bytes, kAlignment));
}

}  // namespace

Result<std::unique_ptr<DenseProduct>> DenseProduct::create(std::shared_ptr<const CudaContext> context, DeviceMemory& memory,
                                                           std::shared_ptr<const BlasLibrary> library, const DenseProductOptions& options) {
  std::unique_ptr<DenseProduct> made(new DenseProduct(std::move(context), memory, std::move(library), options));
  LOCKSTEP_RETURN_IF_ERROR(made->open());
  return made;
}

DenseProduct::DenseProduct(std::shared_ptr<const CudaContext> context, DeviceMemory& memory, std::shared_ptr<const BlasLibrary> library,
                           const DenseProductOptions& options)
    : context_(std::move(context)),
      memory_(&memory),
      library_(std::move(library)),
      options_(options),
      operation_(nullptr, library_->operation_destroy),
      preference_(nullptr, library_->preference_destroy) {}

Status DenseProduct::open() {
  cublasLtMatmulDesc_t operation = nullptr;
  LOCKSTEP_RETURN_IF_ERROR(library_->check(library_->operation_create(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate", *context_));
  operation_.reset(operation);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  LOCKSTEP_RETURN_IF_ERROR(library_->check(library_->operation_set(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
                                           "cublasLtMatmulDescSetAttribute", *context_));
  cublasLtMatmulPreference_t preference = nullptr;
  LOCKSTEP_RETURN_IF_ERROR(library_->check(library_->preference_create(&preference), "cublasLtMatmulPreferenceCreate", *context_));
  preference_.reset(preference);
  return {};
}

Result<DenseProduct::Layout> DenseProduct::make_layout(cudaDataType_t type, std::int64_t rows, std::int64_t columns) const {
  cublasLtMatrixLayout_t made = nullptr;
  LOCKSTEP_RETURN_IF_ERROR(library_->check(library_->layout_create(&made, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), rows),
                                           "cublasLtMatrixLayoutCreate", *context_));
  return Layout(made, library_->layout_destroy);
}

Result<DenseProduct::Shape*> DenseProduct::shape_of(std::int64_t inputs, std::int64_t outputs) {
  const auto known = shapes_.find({inputs, outputs});
  if (known != shapes_.end()) {
    return &known->second;
  }
  LOCKSTEP_ASSIGN_OR_RETURN(Layout weight, make_layout(CUDA_R_16BF, inputs, outputs));
  LOCKSTEP_ASSIGN_OR_RETURN(Layout x, make_layout(CUDA_R_16BF, inputs, 1));
  LOCKSTEP_ASSIGN_OR_RETURN(Layout out, make_layout(CUDA_R_32F, outputs, 1));
  Shape shape{.inputs = inputs, .outputs = outputs, .weight = std::move(weight), .x = std::move(x), .out = std::move(out)};
  return &shapes_.emplace(std::pair{inputs, outputs}, std::move(shape)).first->second;
}

Status DenseProduct::set_preference(const Shape& shape) const {
  const auto set = [this](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    return library_->check(library_->preference_set(preference_.get(), attribute, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute", *context_);
  };
  // A sum that is split is put together in another order, and by how many it is split depends on the number of rows.
  const std::uint32_t reductions = options_.batch_invariant ? CUBLASLT_REDUCTION_SCHEME_NONE : CUBLASLT_REDUCTION_SCHEME_MASK;
  LOCKSTEP_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions));
  LOCKSTEP_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{options_.workspace_bytes_max}));
  // Rows may begin anywhere in a buffer, so their width says what can be relied on. Else an algorithm would depend on where the rows lie.
  LOCKSTEP_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(kAlignment)));
  LOCKSTEP_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, row_alignment(shape.inputs * static_cast<std::int64_t>(sizeof(BFloat16)))));
  const std::uint32_t out_alignment = row_alignment(shape.outputs * static_cast<std::int64_t>(sizeof(float)));
  LOCKSTEP_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out_alignment));
  return set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out_alignment);
}

Status DenseProduct::set_rows(const Shape& shape, std::int64_t rows) const {
  const auto columns = static_cast<std::uint64_t>(rows);
  for (const Layout* const layout : {&shape.x, &shape.out}) {
    LOCKSTEP_RETURN_IF_ERROR(library_->check(library_->layout_set(layout->get(), CUBLASLT_MATRIX_LAYOUT_COLS, &columns, sizeof columns),
                                             "cublasLtMatrixLayoutSetAttribute", *context_));
  }
  return {};
}

bool DenseProduct::is_usable(const cublasLtMatmulHeuristicResult_t& found) const {
  if (found.state != CUBLAS_STATUS_SUCCESS || found.workspaceSize > options_.workspace_bytes_max) {
    return false;
  }
  if (!options_.batch_invariant) {
    return true;
  }
  std::int32_t splits = 0;
  std::size_t written = 0;
  return library_->algorithm_get(&found.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof splits, &written) == CUBLAS_STATUS_SUCCESS && splits <= 1;
}

Result<DenseProduct::Algorithm> DenseProduct::ask(const Shape& shape, std::int64_t rows, std::int64_t rows_min) const {
  LOCKSTEP_RETURN_IF_ERROR(set_preference(shape));
  LOCKSTEP_RETURN_IF_ERROR(set_rows(shape, rows));
  std::array<cublasLtMatmulHeuristicResult_t, kAlgorithmsAsked> results{};
  int count = 0;
  const cublasStatus_t asked = library_->find_algorithms(library_->handle(), operation_.get(), shape.weight.get(), shape.x.get(), shape.out.get(),
                                                         shape.out.get(), preference_.get(), kAlgorithmsAsked, results.data(), &count);
  if (asked != CUBLAS_STATUS_NOT_SUPPORTED) {
    LOCKSTEP_RETURN_IF_ERROR(library_->check(asked, "cublasLtMatmulAlgoGetHeuristic", *context_));
  }
  // It has to do for the fewest rows as well.
  LOCKSTEP_RETURN_IF_ERROR(set_rows(shape, rows_min));
  Algorithm chosen;
  for (const cublasLtMatmulHeuristicResult_t& result : std::span(results).first(static_cast<std::size_t>(count))) {
    cublasLtMatmulHeuristicResult_t fewest{};
    if (is_usable(result) && library_->check_algorithm(library_->handle(), operation_.get(), shape.weight.get(), shape.x.get(), shape.out.get(),
                                                       shape.out.get(), &result.algo, &fewest) == CUBLAS_STATUS_SUCCESS) {
      chosen.found = true;
      chosen.algorithm = result.algo;
      chosen.workspace_bytes = std::max(result.workspaceSize, fewest.workspaceSize);
      break;
    }
  }
  return chosen;
}

Result<const DenseProduct::Algorithm*> DenseProduct::algorithm_for(Shape& shape, std::int64_t rows) {
  const auto known = std::ranges::lower_bound(shape.algorithms, rows, {}, &Algorithm::rows_max);
  const auto bucket = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(rows)));
  if (known != shape.algorithms.end() && (known->rows_max == bucket || known->rows_max == kAnyRows)) {
    return &*known;
  }
  Algorithm added;
  if (options_.batch_invariant) {
    LOCKSTEP_ASSIGN_OR_RETURN(added, ask(shape, kInvariantRows, 1));
    added.rows_max = kAnyRows;
  } else {
    LOCKSTEP_ASSIGN_OR_RETURN(added, ask(shape, bucket, bucket / 2 + 1));
    added.rows_max = bucket;
  }
  LOCKSTEP_RETURN_IF_ERROR(provide_workspaces(added.workspace_bytes));
  return &*shape.algorithms.insert(known, added);
}

Status DenseProduct::prepare(std::int64_t inputs, std::int64_t outputs, std::int64_t rows_max) {
  LOCKSTEP_ASSIGN_OR_RETURN(Shape * shape, shape_of(inputs, outputs));
  for (std::int64_t rows = 1; rows / 2 < rows_max; rows *= 2) {  // the last bucket reaches beyond rows_max
    LOCKSTEP_RETURN_IF_ERROR(algorithm_for(*shape, rows));
  }
  return {};
}

Status DenseProduct::provide_workspaces(std::size_t bytes) {
  if (bytes <= workspace_bytes_) {
    return {};
  }
  workspaces_.resize(std::max(workspaces_.size(), kStreamsExpected));
  for (Workspace& workspace : workspaces_) {
    outgrown_.push_back(std::move(workspace.memory));
    LOCKSTEP_ASSIGN_OR_RETURN(workspace.memory, memory_->allocate(bytes));
  }
  workspace_bytes_ = bytes;
  return {};
}

Result<void*> DenseProduct::workspace_of(const CudaStream& stream) {
  auto mine = std::ranges::find(workspaces_, stream.id(), &Workspace::stream);
  if (mine == workspaces_.end()) {
    mine = std::ranges::find(workspaces_, std::uint64_t{0}, &Workspace::stream);
  }
  if (mine == workspaces_.end()) {
    LOCKSTEP_ASSIGN_OR_RETURN(Buffer memory, memory_->allocate(workspace_bytes_));
    mine = workspaces_.insert(mine, Workspace{.memory = std::move(memory)});
  }
  mine->stream = stream.id();
  return mine->memory.as<void>();
}

Result<bool> DenseProduct::enqueue(CudaStream& stream, const Operands& operands) {
  LOCKSTEP_ASSIGN_OR_RETURN(Shape * shape, shape_of(operands.inputs, operands.outputs));
  LOCKSTEP_ASSIGN_OR_RETURN(const Algorithm* algorithm, algorithm_for(*shape, operands.rows));
  if (!algorithm->found) {
    return false;
  }
  void* workspace = nullptr;
  if (algorithm->workspace_bytes > 0) {
    LOCKSTEP_ASSIGN_OR_RETURN(workspace, workspace_of(stream));
  }
  LOCKSTEP_RETURN_IF_ERROR(set_rows(*shape, operands.rows));
  constexpr float kOne = 1.0F;
  constexpr float kNothing = 0.0F;
  LOCKSTEP_RETURN_IF_ERROR(library_->check(
      library_->matmul(library_->handle(), operation_.get(), &kOne, operands.weight, shape->weight.get(), operands.x, shape->x.get(), &kNothing, operands.out,
                       shape->out.get(), operands.out, shape->out.get(), &algorithm->algorithm, workspace, algorithm->workspace_bytes, stream.native()),
      "cublasLtMatmul", *context_, stream.name()));
  stream.launched(cudaSuccess, "cublasLtMatmul");  // counted like a kernel of our own
  return true;
}

bool DenseProduct::run(CudaStream& stream, const Operands& operands) {
  Result<bool> enqueued = enqueue(stream, operands);
  if (!enqueued) {
    stream.note(std::move(enqueued).error());
    return true;
  }
  return *enqueued;
}

}  // namespace lockstep::device::cuda
