# SPDX-License-Identifier: Apache-2.0
# The libraries that we stand on, as the interface target lora_dependencies. scripts/deps installs them.
find_package(PkgConfig REQUIRED)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

# CBLAS and LAPACK: OpenBLAS brings both. (Debian's blas.pc and lapack.pc are alternatives that may point
# at an implementation without cblas.h.)
pkg_check_modules(OPENBLAS IMPORTED_TARGET openblas)
if(NOT OPENBLAS_FOUND)
  pkg_check_modules(OPENBLAS REQUIRED IMPORTED_TARGET cblas lapack)
endif()
# They are not linked but loaded when they are needed, under the soname that we find here (src/kern/blas.h).
find_program(LORA_READELF NAMES ${CMAKE_READELF} readelf llvm-readelf REQUIRED)
set(LORA_BLAS_SONAMES)
foreach(library ${OPENBLAS_LINK_LIBRARIES})
  if(library MATCHES "blas|lapack")
    execute_process(COMMAND ${LORA_READELF} -d ${library} OUTPUT_VARIABLE dynamic ERROR_QUIET)
    if(NOT dynamic MATCHES "SONAME[^\n]*\\[([^]\n]+)\\]")
      message(FATAL_ERROR "${library} has no soname: a shared BLAS library is needed")
    endif()
    list(APPEND LORA_BLAS_SONAMES "\"${CMAKE_MATCH_1}\"")
  endif()
endforeach()
list(REMOVE_DUPLICATES LORA_BLAS_SONAMES)
list(JOIN LORA_BLAS_SONAMES "," LORA_BLAS_SONAMES)
pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(SODIUM REQUIRED IMPORTED_TARGET libsodium)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)

add_library(lora_dependencies INTERFACE)
target_link_libraries(lora_dependencies INTERFACE PkgConfig::CJSON PkgConfig::CRYPTO PkgConfig::PCRE2
  PkgConfig::ZSTD PkgConfig::SODIUM PkgConfig::UTF8PROC Threads::Threads ${CMAKE_DL_LIBS} m)
target_include_directories(lora_dependencies SYSTEM INTERFACE ${OPENBLAS_INCLUDE_DIRS})

# What a program needs that links libloractl.a.
set(LORA_PRIVATE_LIBS ${CJSON_LDFLAGS} ${CRYPTO_LDFLAGS} ${PCRE2_LDFLAGS} ${ZSTD_LDFLAGS} ${SODIUM_LDFLAGS}
  ${UTF8PROC_LDFLAGS} -pthread ${CMAKE_DL_LIBS} -lm)
list(TRANSFORM LORA_PRIVATE_LIBS REPLACE "^([a-z]+)$" "-l\\1")
list(JOIN LORA_PRIVATE_LIBS " " LORA_PRIVATE_LIBS)
