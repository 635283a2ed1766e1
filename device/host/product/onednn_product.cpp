#include "device/host/product/onednn_product.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include <fmt/format.h>
#include <omp.h>

#include "device/host/host_memory.hpp"
#include "device/host/product/matrix_source.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::device::host {

namespace {

using dnnl::memory;

/// oneDNN's batch-reduce kernels: measured to compute each row alone. Its general matrix product ("gemm:jit") does not.
constexpr std::string_view kPinnedImplementation = "brg";

/// oneDNN would start a team of threads at the first call from each of ours, and the team would spin between calls: one thread each, and no team is made.
/// The setting belongs to the calling thread, and so is repeated; it costs a store.
void use_one_thread() {
  omp_set_num_threads(1);
}

template <typename Body>
auto guarded(std::string_view what, const WeightShape& shape, Body body) -> decltype(body()) {
  try {
    use_one_thread();
    return body();
  } catch (const dnnl::error& thrown) {
    const ErrorCode code = thrown.status == dnnl_out_of_memory ? ErrorCode::kResourceExhausted : ErrorCode::kUnsupported;
    return Error{code, fmt::format("oneDNN cannot {} a weight of {} x {}: {}", what, shape.output, shape.input, thrown.what())};
  }
}

}  // namespace

Result<std::unique_ptr<OneDnnProduct>> OneDnnProduct::create(ProductKind kind, const Kernels& kernels) {
  try {
    return std::unique_ptr<OneDnnProduct>(new OneDnnProduct(kind, kernels));
  } catch (const dnnl::error& thrown) {
    return Error{ErrorCode::kInternal, fmt::format("oneDNN does not start: {}", thrown.what())};
  }
}

OneDnnProduct::OneDnnProduct(ProductKind kind, const Kernels& kernels)
    : kernels_(&kernels),
      type_(kind == ProductKind::kOneDnnFloat32 ? memory::data_type::f32 : memory::data_type::bf16),
      engine_(dnnl::engine::kind::cpu, 0),
      stream_(engine_) {}

dnnl::matmul::primitive_desc OneDnnProduct::describe(const WeightShape& shape, int rows, const memory::desc& layout) const {
  const memory::desc x({rows, shape.input}, type_, memory::format_tag::ab);
  const memory::desc out({rows, shape.output}, memory::data_type::f32, memory::format_tag::ab);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // ours: oneDNN's own would be allocated by the first call of each thread
  return {dnnl::matmul::desc(x, layout, out), attributes, engine_};
}

Result<memory::desc> OneDnnProduct::pinned_layout(const WeightShape& shape) const {
  return guarded("lay out", shape, [&]() -> Result<memory::desc> {
    const memory::desc any({shape.input, shape.output}, type_, memory::format_tag::any);
    const memory::desc layout = describe(shape, kCallRows.front(), any).weights_desc();
    std::string_view first;
    for (const int rows : kCallRows) {
      const dnnl::matmul::primitive_desc description = describe(shape, rows, layout);
      // The name has static storage in oneDNN.
      const std::string_view implementation = description.impl_info_str();
      first = first.empty() ? implementation : first;
      if (!implementation.starts_with(kPinnedImplementation) || implementation != first) {
        return Error{ErrorCode::kUnsupported, fmt::format("oneDNN computes {} rows of a weight of {} x {} by {}, which is not known to treat rows alike", rows,
                                                          shape.output, shape.input, implementation)};
      }
    }
    return layout;
  });
}

Result<OneDnnProduct::Shape*> OneDnnProduct::shape_for(const WeightShape& shape) {
  for (const auto& known : shapes_) {
    if (known->weight == shape) {
      return known.get();
    }
  }
  LOCKSTEP_ASSIGN_OR_RETURN(memory::desc layout, pinned_layout(shape));
  LOCKSTEP_RETURN_IF_ERROR(grow_scratch(shape));
  shapes_.push_back(std::make_unique<Shape>(Shape{.weight = shape, .layout = std::move(layout)}));
  return shapes_.back().get();
}

Result<OneDnnProduct::Call*> OneDnnProduct::call_for(Shape& shape, std::size_t index) {
  std::optional<Call>& call = shape.calls[index];
  if (call) {
    return &*call;
  }
  return guarded("make code for", shape.weight, [&]() -> Result<Call*> {
    const dnnl::matmul::primitive_desc description = describe(shape.weight, kCallRows[index], shape.layout);
    call.emplace(Call{.code = dnnl::matmul(description),
                      .x = memory(description.src_desc(), engine_, nullptr),
                      .out = memory(description.dst_desc(), engine_, nullptr),
                      .scratch = memory(description.scratchpad_desc(), engine_)});
    return &*call;
  });
}

Status OneDnnProduct::grow_scratch(const WeightShape& shape) {
  const auto rows = static_cast<std::size_t>(kCallRows.front());
  const std::size_t bytes = rows * static_cast<std::size_t>(shape.input) * sizeof(float);
  if (type_ == memory::data_type::f32 && x_scratch_.bytes() < bytes) {
    LOCKSTEP_ASSIGN_OR_RETURN(x_scratch_, allocate_zeroed(bytes));
  }
  return {};
}

Result<WeightHandle> OneDnnProduct::pack(const MatrixSource& source) {
  const WeightShape shape{.input = source.columns, .output = source.rows};
  LOCKSTEP_ASSIGN_OR_RETURN(Shape * entry, shape_for(shape));
  // Converted by us and not by oneDNN's reorder: that one rounds the same way, but knows no unaligned source.
  const std::size_t element = type_ == memory::data_type::f32 ? sizeof(float) : sizeof(BFloat16);
  LOCKSTEP_ASSIGN_OR_RETURN(Buffer plain, allocate_zeroed(static_cast<std::size_t>(shape.input * shape.output) * element));
  if (source.type == DataType::kBFloat16 && type_ == memory::data_type::bf16) {
    std::memcpy(plain.as<void>(), source.data, plain.bytes());
  } else {
    std::vector<float> row(static_cast<std::size_t>(shape.input));
    for (std::int64_t n = 0; n < shape.output; ++n) {
      read_row(source, n, type_ == memory::data_type::f32 ? plain.as<float>() + n * shape.input : row.data());
      if (type_ == memory::data_type::bf16) {
        kernels_->narrow(row.data(), shape.input, plain.as<BFloat16>() + n * shape.input);
      }
    }
  }
  LOCKSTEP_ASSIGN_OR_RETURN(Buffer packed, memory_.allocate(entry->layout.get_size()));
  return guarded("pack", shape, [&]() -> Result<WeightHandle> {
    memory from({{shape.input, shape.output}, type_, memory::format_tag::ba}, engine_, plain.as<void>());
    memory to(entry->layout, engine_, packed.as<void>());
    dnnl::reorder(from, to).execute(stream_, from, to);
    stream_.wait();
    return WeightHandle(std::make_shared<HostWeight>(shape, std::move(packed), std::move(to)));
  });
}

Status OneDnnProduct::prepare(const WeightShape& shape, std::int64_t rows_max) {
  LOCKSTEP_ASSIGN_OR_RETURN(Shape * entry, shape_for(shape));
  for (std::size_t i = 0; i < kCallRows.size(); ++i) {
    if (kCallRows[i] <= rows_max) {
      LOCKSTEP_ASSIGN_OR_RETURN([[maybe_unused]] Call * call, call_for(*entry, i));
    }
  }
  return {};
}

void OneDnnProduct::execute(Call& call, const void* x, const HostWeight& weight, float* out) {
  // The C interface: the C++ one makes a map of arguments for each call. Handles are set without a stream, since plain layouts have no padding to clear.
  dnnl_memory_set_data_handle(call.x.get(), const_cast<void*>(x));  // oneDNN's interface has no const; inputs are not written
  dnnl_memory_set_data_handle(call.out.get(), out);
  const std::array<dnnl_exec_arg_t, 4> arguments{dnnl_exec_arg_t{DNNL_ARG_SRC, call.x.get()}, dnnl_exec_arg_t{DNNL_ARG_WEIGHTS, weight.memory().get()},
                                                 dnnl_exec_arg_t{DNNL_ARG_DST, call.out.get()}, dnnl_exec_arg_t{DNNL_ARG_SCRATCHPAD, call.scratch.get()}};
  const dnnl_status_t status = dnnl_primitive_execute(call.code.get(), stream_.get(), static_cast<int>(arguments.size()), arguments.data());
  LOCKSTEP_CHECK(status == dnnl_success, "oneDNN status {} in a matmul by {} x {}", static_cast<int>(status), weight.output_features(),
                 weight.input_features());
}

void OneDnnProduct::multiply(const BFloat16* x, const HostWeight& weight, std::int64_t rows, float* out) {
  use_one_thread();
  const Result<Shape*> shape = shape_for(weight.shape());
  LOCKSTEP_CHECK(shape.has_value(), "matmul of a weight that was not prepared: {}", shape.error().message);
  std::size_t index = 0;
  for (std::int64_t done = 0; done < rows;) {
    while (index + 1 < kCallRows.size() && kCallRows[index] > rows - done) {
      ++index;
    }
    const Result<Call*> call = call_for(**shape, index);
    LOCKSTEP_CHECK(call.has_value(), "matmul of a weight that was not prepared: {}", call.error().message);
    const int call_rows = kCallRows[index];
    const BFloat16* from = x + done * weight.input_features();
    float* to = out + done * weight.output_features();
    if (type_ == memory::data_type::f32) {
      kernels_->widen(from, call_rows * weight.input_features(), x_scratch_.as<float>());
      execute(**call, x_scratch_.as<float>(), weight, to);
    } else {
      execute(**call, from, weight, to);
    }
    done += call_rows;
  }
}

}  // namespace lockstep::device::host
