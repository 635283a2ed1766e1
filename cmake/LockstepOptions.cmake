# Build options, warnings, sanitizers, ccache.
option(LOCKSTEP_TESTS "Build the tests" ON)
option(LOCKSTEP_BENCH "Build the benchmarks" ON)
option(LOCKSTEP_FUZZ "Build the fuzz targets (clang only) and count coverage for them" OFF)
option(LOCKSTEP_NIGHTLY "Tests take what there is time for at night: more schedules, each mode of graphs" OFF)
option(LOCKSTEP_WERROR "Treat warnings as errors" ON)
set(LOCKSTEP_SANITIZE "" CACHE STRING "Sanitizers to build with: address,undefined or thread")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

find_program(LOCKSTEP_CCACHE ccache)
if(LOCKSTEP_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${LOCKSTEP_CCACHE}")
endif()

add_library(lockstep_options INTERFACE)
target_compile_options(lockstep_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor -Wold-style-cast
                                                  -Wno-missing-field-initializers $<$<BOOL:${LOCKSTEP_WERROR}>:-Werror>)
# No -march: the binary runs on every x86-64; kernels choose their instruction set at run time (device/host).
# No contraction by the compiler either: whether it fuses must not depend on how a loop was inlined, or answers would differ in the last bit.
target_compile_options(lockstep_options INTERFACE -ffp-contract=off)
target_compile_definitions(lockstep_options INTERFACE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)

if(LOCKSTEP_SANITIZE)
  target_compile_options(lockstep_options INTERFACE -fsanitize=${LOCKSTEP_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g1 -Wno-tsan -Wno-maybe-uninitialized)
  target_link_options(lockstep_options INTERFACE -fsanitize=${LOCKSTEP_SANITIZE})
endif()

if(LOCKSTEP_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "LOCKSTEP_FUZZ needs clang++ (libFuzzer is part of it), found ${CMAKE_CXX_COMPILER_ID}: use the preset fuzz")
  endif()
  # Warnings are GCC's business: it compiles what users get.
  target_compile_options(lockstep_options INTERFACE -fsanitize=fuzzer-no-link -Wno-everything)
endif()
