#include "device/host/instruction_set.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <dnnl.hpp>

namespace lockstep::device::host {

namespace {

/// Asks Linux for the AMX registers, which a process must before it uses them.
bool permit_amx() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

InstructionSet detect_instruction_set() {
  // The values of oneDNN's enumeration are sets of bits, each containing those of the sets that it implies.
  const auto effective = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto has = [effective](dnnl::cpu_isa isa) { return (effective & static_cast<unsigned>(isa)) == static_cast<unsigned>(isa); };
  if (has(dnnl::cpu_isa::avx512_core_amx)) {
    // oneDNN's own products would use AMX too, in ways that are not safe: without the registers it is our panels.
    return permit_amx() ? InstructionSet{"avx512_core_amx", KernelSet::kAvx512, ProductKind::kAmx}
                        : InstructionSet{"avx512_core", KernelSet::kAvx512, ProductKind::kPanels};
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
