# Options, and the flags that every target gets through one INTERFACE target.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release or RelWithDebInfo" FORCE)
endif()

set(TV_SANITIZE "" CACHE STRING "Sanitizers for -fsanitize=, e.g. address,undefined")
option(TV_OPENMP "Thread the cpu backend with OpenMP" ON)
option(TV_WERROR "Treat warnings as errors" ON)
option(TV_LIBFUZZER "Build the fuzz targets with libFuzzer, and all libraries with its coverage (clang)" OFF)
option(TV_CUDA "Build the cuda backend where nvcc is found" ON)

include(${CMAKE_CURRENT_LIST_DIR}/cuda.cmake)

add_library(tv_flags INTERFACE)
target_include_directories(tv_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/src)
target_compile_definitions(tv_flags INTERFACE _GNU_SOURCE TV_VERSION="${PROJECT_VERSION}")
# One answer: no contraction of a * b + c, no value-changing optimisation (docs/numerics.md, section 6).
# For C; nvcc gets its own in kernels/cuda.
target_compile_options(tv_flags INTERFACE
    "$<$<COMPILE_LANGUAGE:C>:-ffp-contract=off;-fno-math-errno;-Wall;-Wextra;-Wshadow;-Wstrict-prototypes;-Wmissing-prototypes;-Wvla>")
# gcc 12 turns some int8 sums into wrong vpdpbusd instructions when CFLAGS allow VNNI (-march=native): only the files that write these
# instructions themselves get them (kernels/cpu).
include(CheckCCompilerFlag)
foreach(flag -mno-avx512vnni -mno-avxvnni)
    string(MAKE_C_IDENTIFIER "TV_HAVE${flag}" known)
    check_c_compiler_flag(${flag} ${known})
    if(${known})
        target_compile_options(tv_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:${flag}>)
    endif()
endforeach()
if(TV_WERROR)
    target_compile_options(tv_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-Werror>)
endif()
if(TV_SANITIZE)
    # gcc's warnings about flow see the sanitizer's own branches and raise false alarms.
    target_compile_options(tv_flags INTERFACE -fsanitize=${TV_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all
        $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation> $<$<C_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
    target_link_options(tv_flags INTERFACE -fsanitize=${TV_SANITIZE})
endif()

if(TV_LIBFUZZER)
    target_compile_options(tv_flags INTERFACE -fsanitize=fuzzer-no-link)
    target_link_options(tv_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# A target a folder: static library `name` from every .c file of the current folder (an INTERFACE library when there is none),
# with its libraries after it.
function(tv_add_folder_library name)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
    if(sources)
        add_library(${name} STATIC ${sources})
        target_link_libraries(${name} PUBLIC tv_flags ${ARGN})
    else()
        add_library(${name} INTERFACE)
        target_link_libraries(${name} INTERFACE tv_flags ${ARGN})
    endif()
endfunction()

# A cmocka test program from test_<name>.c of the current folder: tv_add_test(name "labels" timeout libraries...)
function(tv_add_test name labels timeout)
    add_executable(test_${name} test_${name}.c)
    target_link_libraries(test_${name} PRIVATE ${ARGN} PkgConfig::CMOCKA)
    add_test(NAME ${name} COMMAND test_${name})
    if(TV_SANITIZE)
        math(EXPR timeout "${timeout} * 10") # sanitized code takes its time
    endif()
    set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT ${timeout} SKIP_RETURN_CODE 77
        ENVIRONMENT "${TV_NO_GPU}")
endfunction()

# Tests without the label cuda see no GPU, so that they test the same on every machine.
set(TV_NO_GPU CUDA_VISIBLE_DEVICES=)

# The program of an earlier tv_add_test once more, as cuda_<name> on the GPU: tv_add_cuda_test(name timeout)
function(tv_add_cuda_test name timeout)
    if(TV_CUDA_BUILT)
        add_test(NAME cuda_${name} COMMAND test_${name})
        set_tests_properties(cuda_${name} PROPERTIES LABELS cuda TIMEOUT ${timeout} SKIP_RETURN_CODE 77
            ENVIRONMENT TV_TEST_BACKEND=cuda)
    endif()
endfunction()
