# One library per folder, and tests that link what they name.

# lockstep_library(comm SOURCES ... PUBLIC ... PRIVATE ...): target lockstep_comm of this folder.
function(lockstep_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(lockstep_${name} STATIC ${ARG_SOURCES})
  add_library(lockstep::${name} ALIAS lockstep_${name})
  target_include_directories(lockstep_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>
                                              PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_features(lockstep_${name} INTERFACE cxx_std_20)  # for who has it installed: the headers need it, and CMake's default is older
  target_link_libraries(lockstep_${name} PUBLIC ${ARG_PUBLIC} PRIVATE $<BUILD_INTERFACE:lockstep_options> ${ARG_PRIVATE})
endfunction()

# lockstep_test(unit_tokenizer LABEL unit [gpu] SOURCES ... LIBRARIES ... [COMMAND_PREFIX ...] [TIMEOUT seconds])
# One executable, one ctest per executable: discovery of each case would start the program hundreds of times.
function(lockstep_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "LABEL;SOURCES;LIBRARIES;COMMAND_PREFIX" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE lockstep_options ${ARG_LIBRARIES} GTest::gmock GTest::gtest_main)
  # LOCKSTEP_TEST_DATA and LOCKSTEP_EMBEDDED_MODEL. In a header and not on the command line: clones at other places share the compiled objects (ccache) of all
  # tests that use neither.
  target_compile_options(${name} PRIVATE -include "${CMAKE_BINARY_DIR}/test_paths.hpp")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  add_test(NAME ${name} COMMAND ${ARG_COMMAND_PREFIX} $<TARGET_FILE:${name}> --gtest_brief=1)
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT
    "ASAN_OPTIONS=detect_leaks=1;LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/suppressions/lsan.txt;TSAN_OPTIONS=halt_on_error=1 second_deadlock_stack=1 suppressions=${PROJECT_SOURCE_DIR}/tests/suppressions/tsan.txt;UBSAN_OPTIONS=print_stacktrace=1")
  # A case that skips itself proves nothing: the test fails, unless it waits for a device.
  if(NOT gpu IN_LIST ARG_LABEL)
    set_tests_properties(${name} PROPERTIES FAIL_REGULAR_EXPRESSION "\\[  SKIPPED \\]")
  endif()
  # What the sanitizer presets build and run.
  if(unit IN_LIST ARG_LABEL OR conformance IN_LIST ARG_LABEL OR group IN_LIST ARG_LABEL)
    add_dependencies(sanitizer_tests ${name})
  endif()
endfunction()
