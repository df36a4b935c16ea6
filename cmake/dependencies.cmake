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
pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(SODIUM REQUIRED IMPORTED_TARGET libsodium)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)

add_library(lora_dependencies INTERFACE)
target_link_libraries(lora_dependencies INTERFACE PkgConfig::CJSON PkgConfig::CRYPTO PkgConfig::PCRE2
  PkgConfig::ZSTD PkgConfig::SODIUM PkgConfig::UTF8PROC PkgConfig::OPENBLAS Threads::Threads m)

# What a program needs that links libloractl.a. Not through Requires.private: openblas.pc then asks for
# the Fortran runtime's development files, which only a wholly static program needs.
set(LORA_PRIVATE_LIBS ${OPENBLAS_LDFLAGS} ${CJSON_LDFLAGS} ${CRYPTO_LDFLAGS} ${PCRE2_LDFLAGS} ${ZSTD_LDFLAGS}
  ${SODIUM_LDFLAGS} ${UTF8PROC_LDFLAGS} -pthread -lm)
list(JOIN LORA_PRIVATE_LIBS " " LORA_PRIVATE_LIBS)
