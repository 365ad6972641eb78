# Whether the cuda backend is built. Sets TV_CUDA_BUILT and says so in one line; enables the language CUDA when it is on.
#
# The Hopper kernels want 90a, the portable ones sm_80 or newer. Other chips:
#   cmake -DCMAKE_CUDA_ARCHITECTURES="80;90a" ...   (or the environment variable CUDAARCHS)
# Without a wish it is 90a, or 80 for an nvcc that does not know 90a yet.
include(CheckLanguage)

# Whether nvcc turns a program into an executable for this architecture, with its host compiler.
function(tv_cuda_compiles architecture result)
    set(folder ${PROJECT_BINARY_DIR}/CMakeFiles/tv_cuda_probe)
    file(WRITE ${folder}/probe.cu "__global__ static void k(int *x) { *x = 1; }\nint main() { k<<<1, 1>>>(nullptr); return 0; }\n")
    execute_process(
        COMMAND ${TV_NVCC} -std=c++17 -gencode arch=compute_${architecture},code=sm_${architecture} -o ${folder}/probe ${folder}/probe.cu
        RESULT_VARIABLE code OUTPUT_QUIET ERROR_QUIET)
    set(works OFF)
    if(code EQUAL 0)
        set(works ON)
    endif()
    set(${result} ${works} PARENT_SCOPE)
endfunction()

# The reason why the backend is off, empty when nothing stands against it.
set(TV_CUDA_BUILT OFF)
set(tv_cuda_reason "")
find_program(TV_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NOT TV_CUDA)
    set(tv_cuda_reason "switched off")
elseif(TV_SANITIZE)
    set(tv_cuda_reason "not together with TV_SANITIZE")
elseif(NOT TV_NVCC)
    set(tv_cuda_reason "nvcc not found")
elseif(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    foreach(architecture 90a 80)
        if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
            tv_cuda_compiles(${architecture} tv_cuda_works)
            if(tv_cuda_works)
                set(CMAKE_CUDA_ARCHITECTURES ${architecture} CACHE STRING "GPUs to build for, e.g. 80;90a")
            endif()
        endif()
    endforeach()
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
        set(tv_cuda_reason "${TV_NVCC} cannot compile a test program")
    endif()
endif()

if(NOT tv_cuda_reason)
    if(NOT DEFINED ENV{CUDACXX} AND NOT CMAKE_CUDA_COMPILER)
        set(ENV{CUDACXX} ${TV_NVCC})
    endif()
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
        enable_language(CUDA)
        set(TV_CUDA_BUILT ON)
    else()
        set(tv_cuda_reason "${TV_NVCC} cannot compile a test program")
    endif()
endif()

if(TV_CUDA_BUILT)
    message(STATUS "TV_CUDA on: CUDA ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")
else()
    message(STATUS "TV_CUDA off: ${tv_cuda_reason}")
endif()
