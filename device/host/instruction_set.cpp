#include "device/host/instruction_set.hpp"

#include <dnnl.hpp>

namespace lockstep::device::host {

InstructionSet detect_instruction_set() {
  // The values of oneDNN's enumeration are sets of bits, each containing those of the sets that it implies.
  const auto effective = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto has = [effective](dnnl::cpu_isa isa) { return (effective & static_cast<unsigned>(isa)) == static_cast<unsigned>(isa); };
  if (has(dnnl::cpu_isa::avx512_core_amx)) {
    return {"avx512_core_amx", KernelSet::kAvx512, ProductKind::kOneDnnAmx};
  }
  if (has(dnnl::cpu_isa::avx512_core_bf16)) {
    return {"avx512_core_bf16", KernelSet::kAvx512, ProductKind::kOneDnnBFloat16};
  }
  if (has(dnnl::cpu_isa::avx512_core)) {
    return {"avx512_core", KernelSet::kAvx512, ProductKind::kOneDnnFloat32};
  }
  if (has(dnnl::cpu_isa::avx2)) {
    return {"avx2", KernelSet::kAvx2, ProductKind::kPanels};
  }
  return {"x86_64", KernelSet::kBaseline, ProductKind::kPanels};
}

}  // namespace lockstep::device::host
