// Which instructions this process computes with: one decision, from which kernels, matrix products and the name follow.
#pragma once

#include <string>

namespace lockstep::device::host {

/// Which compilation of the kernels runs.
enum class KernelSet { kBaseline, kAvx2, kAvx512 };

/// How matrix products are computed; docs/decisions/0003-host-matmul.md and 0009-amx-kernel.md say why.
enum class ProductKind {
  kAmx,             ///< our own kernel over bfloat16 tiles
  kOneDnnBFloat16,  ///< oneDNN, bfloat16 weights
  kOneDnnFloat32,   ///< oneDNN, float32 weights: AVX-512 without bfloat16
  kPanels,          ///< our own kernel over float32 panels: oneDNN's below AVX-512 depends on the number of rows
};

struct InstructionSet {
  std::string name;  ///< spelled like oneDNN's: "avx512_core_amx", "avx2"
  KernelSet kernels = KernelSet::kBaseline;
  ProductKind product = ProductKind::kPanels;
};

/// The best that this CPU has within oneDNN's limit (DNNL_MAX_CPU_ISA), so that both agree.
[[nodiscard]] InstructionSet detect_instruction_set();

}  // namespace lockstep::device::host
