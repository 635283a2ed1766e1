// The kernels for any x86-64: device/CMakeLists.txt passes the compiler's switches.
#define LOCKSTEP_KERNEL_NAMESPACE baseline
#define LOCKSTEP_KERNEL_WIDTH 4
#include "device/host/kernels/kernels.inc"
