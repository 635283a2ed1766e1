# LOCKSTEP_CUDA: whether the CUDA backend is built. It is a plugin: nothing else needs the toolkit, to build or to run.
set(LOCKSTEP_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (when a toolkit is found), ON or OFF")
set_property(CACHE LOCKSTEP_CUDA PROPERTY STRINGS AUTO ON OFF)
set(LOCKSTEP_CUDA_ARCHITECTURES "80;90;100" CACHE STRING "GPUs that kernels are compiled for, as compute capabilities without the dot")
set(lockstep_cuda_version_min 13.0)

string(TOUPPER "${LOCKSTEP_CUDA}" lockstep_cuda_wish)
if(lockstep_cuda_wish MATCHES "^(1|YES|TRUE|Y)$")
  set(lockstep_cuda_wish ON)
elseif(lockstep_cuda_wish MATCHES "^(0|NO|FALSE|N|)$")
  set(lockstep_cuda_wish OFF)
elseif(NOT lockstep_cuda_wish MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "LOCKSTEP_CUDA is \"${LOCKSTEP_CUDA}\", expected AUTO, ON or OFF")
endif()

# Sets LOCKSTEP_CUDA_MISSING to what a build of the backend lacks; empty: nothing. By hand, as are the compilations: CMake 3.25's own support for CUDA knows
# neither that nvcc 13 has C++20 nor which architectures it has left.
function(lockstep_find_cuda)
  set(missing "")
  find_program(LOCKSTEP_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(NOT LOCKSTEP_NVCC)
    set(missing "nvcc is neither on PATH nor in /usr/local/cuda/bin: install the CUDA toolkit ${lockstep_cuda_version_min} or newer, or set LOCKSTEP_NVCC")
  else()
    execute_process(COMMAND "${LOCKSTEP_NVCC}" --version OUTPUT_VARIABLE text ERROR_VARIABLE text RESULT_VARIABLE status)
    string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" matched "${text}")
    if(NOT status EQUAL 0 OR NOT matched)
      set(missing "${LOCKSTEP_NVCC} --version failed")
    elseif(CMAKE_MATCH_1 VERSION_LESS lockstep_cuda_version_min)
      set(missing "${LOCKSTEP_NVCC} is of CUDA ${CMAKE_MATCH_1}, needed is ${lockstep_cuda_version_min} or newer")
    elseif(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      set(missing "the compiler is ${CMAKE_CXX_COMPILER_ID}; the backend is built with GCC only")
    elseif(NOT LOCKSTEP_CUDA_ARCHITECTURES MATCHES "^[0-9]+[af]?(;[0-9]+[af]?)*$")
      set(missing "LOCKSTEP_CUDA_ARCHITECTURES is \"${LOCKSTEP_CUDA_ARCHITECTURES}\", expected numbers such as 80;90;100")
    endif()
  endif()
  set(LOCKSTEP_CUDA_MISSING "${missing}" PARENT_SCOPE)
endfunction()

set(LOCKSTEP_HAS_CUDA OFF)
if(NOT lockstep_cuda_wish STREQUAL "OFF")
  lockstep_find_cuda()
  if(LOCKSTEP_CUDA_MISSING AND lockstep_cuda_wish STREQUAL "ON")
    message(FATAL_ERROR "LOCKSTEP_CUDA is ON, but ${LOCKSTEP_CUDA_MISSING}")
  elseif(LOCKSTEP_CUDA_MISSING)
    message(STATUS "CUDA backend: not built, ${LOCKSTEP_CUDA_MISSING}")
  else()
    set(LOCKSTEP_HAS_CUDA ON)
    get_filename_component(lockstep_cuda_root "${LOCKSTEP_NVCC}" REALPATH)
    get_filename_component(lockstep_cuda_root "${lockstep_cuda_root}/../.." ABSOLUTE)
    # A runtime of its own in the plugin would be one that no other library shares, and that no test could put another one in place of.
    find_library(LOCKSTEP_CUDART cudart HINTS "${lockstep_cuda_root}" PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib NO_DEFAULT_PATH REQUIRED)
    find_path(LOCKSTEP_CUDA_INCLUDE cuda_runtime_api.h HINTS "${lockstep_cuda_root}" PATH_SUFFIXES include targets/x86_64-linux/include NO_DEFAULT_PATH REQUIRED)
    add_library(lockstep_cudart SHARED IMPORTED)
    set_target_properties(lockstep_cudart PROPERTIES IMPORTED_LOCATION "${LOCKSTEP_CUDART}" IMPORTED_SONAME libcudart.so.13
                                                     INTERFACE_INCLUDE_DIRECTORIES "${LOCKSTEP_CUDA_INCLUDE}")
    message(STATUS "CUDA backend: built by ${LOCKSTEP_NVCC} for ${LOCKSTEP_CUDA_ARCHITECTURES}")
  endif()
endif()

# lockstep_cuda_objects(OUT SOURCE...): compiles .cu files for all architectures; OUT becomes the objects.
function(lockstep_cuda_objects out)
  set(objects "")
  set(codes "")
  foreach(architecture ${LOCKSTEP_CUDA_ARCHITECTURES})
    list(APPEND codes "-gencode=arch=compute_${architecture},code=sm_${architecture}")
  endforeach()
  foreach(source ${ARGN})
    set(object "${CMAKE_CURRENT_BINARY_DIR}/${source}.o")
    get_filename_component(folder "${object}" DIRECTORY)
    file(MAKE_DIRECTORY "${folder}")
    add_custom_command(
      OUTPUT "${object}"
      # --fmad=false: products that are to be fused are written as fmaf, so that all architectures and the simulated runtime's twins compute alike.
      COMMAND ${LOCKSTEP_CCACHE} "${LOCKSTEP_NVCC}" -ccbin "${CMAKE_CXX_COMPILER}" -std=c++20 -O3 --fmad=false --expt-relaxed-constexpr ${codes}
              "-I${PROJECT_SOURCE_DIR}" "-I${PROJECT_SOURCE_DIR}/include" -Xcompiler=-fPIC,-Wall,-Wextra,-fvisibility=hidden
              $<$<BOOL:${LOCKSTEP_WERROR}>:-Werror=all-warnings> -MD -MF "${object}.d" -c "${CMAKE_CURRENT_SOURCE_DIR}/${source}" -o "${object}"
      DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${source}"
      DEPFILE "${object}.d"
      COMMENT "Building CUDA object ${source}" COMMAND_EXPAND_LISTS VERBATIM)
    list(APPEND objects "${object}")
  endforeach()
  set_source_files_properties(${objects} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  set(${out} "${objects}" PARENT_SCOPE)
endfunction()

# What program and plugin have to agree on, byte for byte: the headers between them, the compiler, the version. A plugin of another build is refused by it.
set(lockstep_interface_headers "")
file(GLOB lockstep_interface_headers CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/include/lockstep/device/*.hpp" "${PROJECT_SOURCE_DIR}/include/lockstep/core/*.hpp"
     "${PROJECT_SOURCE_DIR}/device/plugin/plugin_interface.hpp")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${lockstep_interface_headers})
set(lockstep_interface_text "")
foreach(header ${lockstep_interface_headers})
  file(SHA256 "${header}" hash)
  string(APPEND lockstep_interface_text "${hash}")
endforeach()
string(SHA256 lockstep_interface_hash "${lockstep_interface_text}")
string(SUBSTRING "${lockstep_interface_hash}" 0 12 lockstep_interface_hash)
set(LOCKSTEP_DEVICE_INTERFACE "${PROJECT_VERSION} ${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} ${lockstep_interface_hash}")
