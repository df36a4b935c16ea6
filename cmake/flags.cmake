# SPDX-License-Identifier: Apache-2.0
# The flags of every file, as the interface target lora_flags.
include(CheckCCompilerFlag)
include(CheckPIESupported)
check_pie_supported(LANGUAGES C)

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_SKIP_RPATH ON)
set(CMAKE_C_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_C_FLAGS_DEBUG "-Og -g")

set(LORA_ON_AARCH64 OFF)
set(LORA_ON_X86_64 OFF)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(LORA_ON_AARCH64 ON)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(LORA_ON_X86_64 ON)
endif()

# result := does the compiler take all of these instruction set flags, for an x86-64 target?
function(lora_compiles flags result)
  if(LORA_ON_X86_64)
    list(JOIN flags " " text)
    check_c_compiler_flag("${text}" ${result})
  else()
    set(${result} OFF PARENT_SCOPE)
  endif()
endfunction()

# Adds those of the flags that this compiler knows.
function(lora_flags_if_known)
  foreach(flag ${ARGN})
    string(MAKE_C_IDENTIFIER "LORA_CC${flag}" known)
    check_c_compiler_flag("-Werror ${flag}" ${known})
    if(${known})
      target_compile_options(lora_flags INTERFACE ${flag})
    endif()
  endforeach()
endfunction()

add_library(lora_flags INTERFACE)
target_compile_definitions(lora_flags INTERFACE _GNU_SOURCE)
target_compile_options(lora_flags INTERFACE
  -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef
  -Wno-missing-field-initializers
  # The rounding contract: a fused multiply-add happens where fmaf() is written, and nowhere else.
  -ffp-contract=off
  -fno-common)
if(CMAKE_BUILD_TYPE STREQUAL "Release") # the same bytes whatever folder the build runs in
  target_compile_options(lora_flags INTERFACE
    "-ffile-prefix-map=${PROJECT_SOURCE_DIR}=." "-ffile-prefix-map=${PROJECT_BINARY_DIR}=build")
endif()
if(LORACTL_WERROR)
  target_compile_options(lora_flags INTERFACE -Werror)
endif()

if(LORACTL_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "LORACTL_FUZZ needs clang: cmake --preset fuzz")
  endif()
  target_compile_options(lora_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(LORACTL_SANITIZE)
  target_compile_options(lora_flags INTERFACE -fsanitize=${LORACTL_SANITIZE}
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(lora_flags INTERFACE -fsanitize=${LORACTL_SANITIZE})
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
  # Hardening, as the OpenSSF's guide to compiler options has it.
  target_compile_options(lora_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
  lora_flags_if_known(-fstack-protector-strong -fstack-clash-protection -fcf-protection
    -ftrivial-auto-var-init=zero -fno-semantic-interposition)
endif()
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  target_link_options(lora_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed)
endif()
