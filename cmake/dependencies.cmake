# SPDX-License-Identifier: Apache-2.0
# The libraries that we stand on, as the interface target lora_dependencies. scripts/deps installs them.
find_package(PkgConfig REQUIRED)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

set(LORA_PKGCONFIG libcjson libcrypto libpcre2-8)
# CBLAS and LAPACK: OpenBLAS brings both. (Debian's blas.pc and lapack.pc are alternatives that may point
# at an implementation without cblas.h.)
pkg_check_modules(OPENBLAS IMPORTED_TARGET openblas)
if(OPENBLAS_FOUND)
  add_library(lora_blas ALIAS PkgConfig::OPENBLAS)
  list(APPEND LORA_PKGCONFIG openblas)
else()
  pkg_check_modules(BLAS REQUIRED IMPORTED_TARGET cblas lapack)
  add_library(lora_blas ALIAS PkgConfig::BLAS)
  list(APPEND LORA_PKGCONFIG cblas lapack)
endif()
pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)

add_library(lora_dependencies INTERFACE)
target_link_libraries(lora_dependencies INTERFACE PkgConfig::CJSON PkgConfig::CRYPTO PkgConfig::PCRE2
  lora_blas Threads::Threads m)
