# lockstep as an installed library: headers of the three modules and what they stand on, two static libraries, and files by which CMake and pkg-config find them.
# Not installed: comm, model, scheduler and daemon, which are parts of lockstepd and no interface for others.
include(CMakePackageConfigHelpers)

install(TARGETS lockstep_core lockstep_device EXPORT lockstepTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library)
set_target_properties(lockstep_core PROPERTIES EXPORT_NAME core)
set_target_properties(lockstep_device PROPERTIES EXPORT_NAME device)

install(FILES include/lockstep/forward_context.hpp include/lockstep/micro_batch.hpp include/lockstep/microbatcher.hpp
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/lockstep COMPONENT library)
install(DIRECTORY include/lockstep/core include/lockstep/device include/lockstep/micro_batch include/lockstep/microbatcher
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/lockstep COMPONENT library FILES_MATCHING PATTERN "*.hpp")

set(package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/lockstep")
install(EXPORT lockstepTargets NAMESPACE lockstep:: DESTINATION ${package_folder} COMPONENT library)
configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/lockstepConfig.cmake.in" "${CMAKE_BINARY_DIR}/package/lockstepConfig.cmake"
                              INSTALL_DESTINATION ${package_folder})
# Before 1.0 a minor version may change an interface.
write_basic_package_version_file("${CMAKE_BINARY_DIR}/package/lockstepConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_BINARY_DIR}/package/lockstepConfig.cmake" "${CMAKE_BINARY_DIR}/package/lockstepConfigVersion.cmake"
        DESTINATION ${package_folder} COMPONENT library)

configure_file("${CMAKE_CURRENT_LIST_DIR}/lockstep.pc.in" "${CMAKE_BINARY_DIR}/package/lockstep.pc" @ONLY)
install(FILES "${CMAKE_BINARY_DIR}/package/lockstep.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT library)
