# The Debian packages, by `cpack --config CPackConfig.cmake` in a build folder: lockstep (daemon, units, pages, dashboard), liblockstep-dev (the library) and,
# where a CUDA toolkit was found, lockstep-cuda (plugins: whatever is installed as component `cuda`).
# What lies outside of the prefix (/etc, /usr/lib/systemd) is in the component `system`, which `cmake --install` leaves out: it is for packages alone.
set(lockstep_systemd "${PROJECT_SOURCE_DIR}/systemd")

# ---- pages from --help -------------------------------------------------------------------------------------------------------------------------------------
if(TARGET lockstepd)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  set(pages "${CMAKE_BINARY_DIR}/packaging")
  function(lockstep_pages program section command)
    add_custom_command(
      OUTPUT "${pages}/${program}.${section}" "${pages}/${program}.bash" "${pages}/_${program}" "${pages}/${program}.fish"
      COMMAND ${CMAKE_COMMAND} -E make_directory "${pages}"
      COMMAND "${command}" --help > "${pages}/${program}.help"
      COMMAND ${Python3_EXECUTABLE} -B "${PROJECT_SOURCE_DIR}/packaging/pages.py" --program ${program} --section ${section}
              --help-file "${pages}/${program}.help" --output "${pages}"
      DEPENDS "${command}" "${PROJECT_SOURCE_DIR}/packaging/pages.py"
      COMMENT "Manual page and completions of ${program}" VERBATIM)
    install(FILES "${pages}/${program}.${section}" DESTINATION "${CMAKE_INSTALL_MANDIR}/man${section}")
    install(FILES "${pages}/${program}.bash" DESTINATION "${CMAKE_INSTALL_DATADIR}/bash-completion/completions" RENAME "${program}")
    install(FILES "${pages}/_${program}" DESTINATION "${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions")
    install(FILES "${pages}/${program}.fish" DESTINATION "${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d")
  endfunction()
  lockstep_pages(lockstepd 8 "$<TARGET_FILE:lockstepd>")
  lockstep_pages(lockstep-run 1 "${PROJECT_SOURCE_DIR}/scripts/lockstep-run")
  add_custom_target(lockstep_pages ALL DEPENDS "${pages}/lockstepd.8" "${pages}/lockstep-run.1")
  add_dependencies(lockstep_pages lockstepd)
  # What the packages of a host that serves are made of, without tests and libraries: for images.
  add_custom_target(lockstep_packaged DEPENDS lockstep_pages)
  foreach(plugin lockstep_cuda lockstep_nccl)
    if(TARGET ${plugin})
      add_dependencies(lockstep_packaged ${plugin})
    endif()
  endforeach()
endif()
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}" RENAME copyright)
install(FILES "${PROJECT_SOURCE_DIR}/CHANGELOG.md" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
install(FILES "${lockstep_systemd}/gpu.conf" DESTINATION "${CMAKE_INSTALL_DATADIR}/lockstep/systemd")
foreach(file rules.yml dashboard.json prometheus.yml)
  install(FILES "${PROJECT_SOURCE_DIR}/monitoring/${file}" DESTINATION "${CMAKE_INSTALL_DATADIR}/lockstep/monitoring")
endforeach()

# ---- the system's own folders ------------------------------------------------------------------------------------------------------------------------------
install(FILES "${lockstep_systemd}/lockstep.service" "${lockstep_systemd}/lockstep@.service"
        DESTINATION /usr/lib/systemd/system COMPONENT system EXCLUDE_FROM_ALL)
install(PROGRAMS "${lockstep_systemd}/lockstep-service" DESTINATION /usr/lib/lockstep COMPONENT system EXCLUDE_FROM_ALL)
install(FILES "${lockstep_systemd}/lockstep.sysusers" DESTINATION /usr/lib/sysusers.d RENAME lockstep.conf COMPONENT system EXCLUDE_FROM_ALL)
install(FILES "${lockstep_systemd}/lockstep.tmpfiles" DESTINATION /usr/lib/tmpfiles.d RENAME lockstep.conf COMPONENT system EXCLUDE_FROM_ALL)
install(FILES "${lockstep_systemd}/lockstep.conf" DESTINATION /etc/lockstep COMPONENT system EXCLUDE_FROM_ALL)
install(FILES "${lockstep_systemd}/lockstep.default" DESTINATION /etc/default RENAME lockstep COMPONENT system EXCLUDE_FROM_ALL)

# ---- packages ----------------------------------------------------------------------------------------------------------------------------------------------
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME lockstep)
set(CPACK_PACKAGE_CONTACT "lockstep developers <lockstep@localhost>")
set(CPACK_PACKAGE_DIRECTORY "${CMAKE_BINARY_DIR}/packages")
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_SET_DESTDIR ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL daemon system library)
set(CPACK_COMPONENTS_GROUPING ONE_PER_GROUP)
set(CPACK_COMPONENT_DAEMON_GROUP lockstep)
set(CPACK_COMPONENT_SYSTEM_GROUP lockstep)
set(CPACK_COMPONENT_LIBRARY_GROUP dev)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(CPACK_DEBIAN_LOCKSTEP_PACKAGE_NAME lockstep)
set(CPACK_DEBIAN_LOCKSTEP_PACKAGE_SECTION net)
set(CPACK_DEBIAN_LOCKSTEP_DESCRIPTION "daemon that serves a mixture-of-experts language model from many ranks
 One rank per device, started by mpirun, systemd or alone; OpenAI's HTTP interface, Prometheus metrics; a small model is included.")
set(CPACK_DEBIAN_LOCKSTEP_PACKAGE_SHLIBDEPS ON)
# The alternatives are for containers, where no systemd runs: its tools make the user and the folders.
set(CPACK_DEBIAN_LOCKSTEP_PACKAGE_DEPENDS
    "openmpi-bin, systemd | systemd-standalone-sysusers, systemd | systemd-standalone-tmpfiles, init-system-helpers (>= 1.52), passwd")
set(CPACK_DEBIAN_LOCKSTEP_PACKAGE_RECOMMENDS "openssh-client")
set(CPACK_DEBIAN_LOCKSTEP_PACKAGE_SUGGESTS "prometheus, bash-completion")
set(CPACK_DEBIAN_LOCKSTEP_PACKAGE_CONTROL_EXTRA
    "${PROJECT_SOURCE_DIR}/packaging/debian/postinst;${PROJECT_SOURCE_DIR}/packaging/debian/prerm;${PROJECT_SOURCE_DIR}/packaging/debian/postrm;${PROJECT_SOURCE_DIR}/packaging/debian/conffiles")

set(CPACK_DEBIAN_DEV_PACKAGE_NAME liblockstep-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_DESCRIPTION "lockstep as a library: micro-batches, microbatchers, forward context
 Headers, static libraries, and files by which CMake and pkg-config find them.")
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libfmt-dev, libdnnl-dev")

# Without --shlibdeps: NVIDIA's libraries are in no package of Debian's, and the rest is what lockstep depends on already (a test compares). They are only
# recommended, as they may have come without a package; lockstepd says which one it misses. The same version, because a plugin of another build is refused.
if(TARGET lockstep_cuda)
  list(APPEND CPACK_COMPONENTS_ALL cuda)
  set(CPACK_COMPONENT_CUDA_GROUP cuda)
  set(CPACK_DEBIAN_CUDA_PACKAGE_NAME lockstep-cuda)
  set(CPACK_DEBIAN_CUDA_PACKAGE_SECTION contrib/net)
  set(CPACK_DEBIAN_CUDA_DESCRIPTION "lockstep on NVIDIA GPUs: plugins that lockstepd opens when it is asked for them
 The runtime library of CUDA 13 and a driver of branch 580 or newer come from NVIDIA.")
  set(CPACK_DEBIAN_CUDA_PACKAGE_SHLIBDEPS OFF)
  set(CPACK_DEBIAN_CUDA_PACKAGE_DEPENDS "lockstep (= ${PROJECT_VERSION})")
  set(CPACK_DEBIAN_CUDA_PACKAGE_RECOMMENDS "cuda-cudart-13-0 | libcudart13, libcublas-13-0 | libcublas13, libnccl2")
endif()
include(CPack)
