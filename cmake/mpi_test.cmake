# A test that runs a program on several ranks: tv_add_mpi_test(name target ranks "labels" timeout arguments...)
#
# The settings go through the environment, so that the command line is the same for every mpiexec: several ranks on one
# core, also as root, without spinning. mpiexec ends the ranks itself when the time is over; CTest's own limit only
# covers an mpiexec that hangs.
# With "cuda" among the labels the program sees the GPUs. Where several ranks do, nothing else runs: NCCL's kernels wait for each other, and
# a GPU that others share hands them its time in slices.
function(tv_add_mpi_test name target ranks labels timeout)
    math(EXPR ctest_timeout "${timeout} + 15")
    set(environment ${TV_MPI_TEST_ENVIRONMENT} ${TV_NO_GPU})
    set(gate "")
    if("cuda" IN_LIST labels)
        set(environment ${TV_MPI_TEST_ENVIRONMENT})
        set(gate $<TARGET_FILE:gpu_gate>)
    endif()
    add_test(NAME ${name}
        COMMAND ${gate} ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} $<TARGET_FILE:${target}> ${ARGN})
    set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT ${ctest_timeout} SKIP_RETURN_CODE 77
        PROCESSORS ${ranks} ENVIRONMENT "${environment};MPIEXEC_TIMEOUT=${timeout}")
    if("cuda" IN_LIST labels AND ranks GREATER 1)
        set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
    endif()
endfunction()

# For every process of a test that starts MPI. A failed assertion ends its rank at once, else the others would wait for
# it.
set(TV_MPI_TEST_ENVIRONMENT
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
    OMP_NUM_THREADS=1 CMOCKA_TEST_ABORT=1)
# The leaks of MPI are suppressed by the frame of MPI_Init, which only the slow unwinder reaches: modules below it are
# gone at the exit.
if(TV_SANITIZE MATCHES "address")
    list(APPEND TV_MPI_TEST_ENVIRONMENT ASAN_OPTIONS=fast_unwind_on_malloc=0
        LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/sanitizers/lsan.supp:print_suppressions=0)
endif()
