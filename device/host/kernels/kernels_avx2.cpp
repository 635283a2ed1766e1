// The kernels for AVX2 and FMA: device/CMakeLists.txt passes the compiler's switches.
#define LOCKSTEP_KERNEL_NAMESPACE avx2
#define LOCKSTEP_KERNEL_WIDTH 8
#include "device/host/kernels/kernels.inc"
