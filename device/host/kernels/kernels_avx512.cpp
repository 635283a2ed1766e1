// The kernels for AVX-512 F, BW, DQ and VL: device/CMakeLists.txt passes the compiler's switches.
#define LOCKSTEP_KERNEL_NAMESPACE avx512
#define LOCKSTEP_KERNEL_WIDTH 16
#include "device/host/kernels/kernels.inc"
