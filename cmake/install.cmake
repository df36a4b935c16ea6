# SPDX-License-Identifier: Apache-2.0
# What is installed and where; three Debian packages: the command, the library, and what to build with it.
include(CMakePackageConfigHelpers)

set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/loractl)
set(licence_dir ${CMAKE_INSTALL_DATAROOTDIR}/doc)

# --- the command
install(TARGETS loractl RUNTIME COMPONENT bin)
foreach(section 1 5 7)
  file(GLOB pages CONFIGURE_DEPENDS man/*.${section})
  install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section} COMPONENT bin)
endforeach()
set(completions
  loractl.bash bash-completion/completions loractl
  _loractl     zsh/site-functions          _loractl
  loractl.fish fish/vendor_completions.d   loractl.fish)
while(completions)
  list(POP_FRONT completions file folder name)
  if(EXISTS "${PROJECT_SOURCE_DIR}/completions/${file}")
    install(FILES completions/${file} DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/${folder} RENAME ${name}
      COMPONENT bin)
  endif()
endwhile()
install(FILES NEWS.md DESTINATION ${licence_dir}/loractl COMPONENT bin)

# --- the library
install(TARGETS loractl_shared EXPORT loractl
  LIBRARY COMPONENT lib NAMELINK_COMPONENT dev)

# --- to build with it
install(TARGETS loractl_static ARCHIVE COMPONENT dev)
install(DIRECTORY include/loractl DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev
  FILES_MATCHING PATTERN "*.h")
file(GLOB pages CONFIGURE_DEPENDS man/*.3)
install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man3 COMPONENT dev)
file(RELATIVE_PATH pc_up "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
string(REGEX REPLACE "/$" "" pc_up "${pc_up}")
configure_file(cmake/loractl.pc.in loractl.pc @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/loractl.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
  COMPONENT dev)
configure_package_config_file(cmake/loractlConfig.cmake.in loractlConfig.cmake
  INSTALL_DESTINATION ${cmake_dir})
write_basic_package_version_file(loractlConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/loractlConfig.cmake"
  "${PROJECT_BINARY_DIR}/loractlConfigVersion.cmake" DESTINATION ${cmake_dir} COMPONENT dev)
install(EXPORT loractl FILE loractlTargets.cmake NAMESPACE loractl:: DESTINATION ${cmake_dir}
  COMPONENT dev)

# --- the packages: cpack -G DEB
set(CPACK_PACKAGE_VENDOR loractl)
set(CPACK_PACKAGE_CONTACT "the loractl authors <loractl@invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_RESOURCE_FILE_LICENSE "${PROJECT_SOURCE_DIR}/LICENSE")
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL bin lib dev)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_DEV_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
# What is loaded at run time is not seen by shlibdeps: libopenblas.so.0 is in libopenblas0.
set(CPACK_DEBIAN_BIN_PACKAGE_DEPENDS libopenblas0)
set(CPACK_DEBIAN_LIB_PACKAGE_DEPENDS libopenblas0)
# A package bears the name of the soname in it, so that two of them can be installed side by side.
set(CPACK_DEBIAN_BIN_PACKAGE_NAME loractl)
set(CPACK_DEBIAN_LIB_PACKAGE_NAME libloractl${abi})
set(CPACK_DEBIAN_DEV_PACKAGE_NAME libloractl-dev)
set(CPACK_DEBIAN_BIN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_LIB_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_COMPONENT_BIN_DESCRIPTION "The loractl command, its manual pages and completions.")
set(CPACK_COMPONENT_LIB_DESCRIPTION "The shared library under the loractl command.")
set(CPACK_COMPONENT_DEV_DESCRIPTION "Headers and static library of libloractl.")
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "libloractl${abi} (= ${PROJECT_VERSION}), \
libcjson-dev, libpcre2-dev, libsodium-dev, libssl-dev, libutf8proc-dev, libzstd-dev")
# Each package carries the licence under its own name, where Debian looks for it.
foreach(component bin lib dev)
  string(TOUPPER ${component} upper)
  install(FILES LICENSE DESTINATION ${licence_dir}/${CPACK_DEBIAN_${upper}_PACKAGE_NAME}
    RENAME copyright COMPONENT ${component})
endforeach()
include(CPack)
