# Runs PROGRAM MODE under MPIEXEC and expects that it ends by itself, soon, with exit status CODE ("any": not 0), and
# prints OUTPUT.
execute_process(COMMAND ${MPIEXEC} ${PROGRAM} ${MODE} TIMEOUT 40
    RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE errors)
set(output "${output}${errors}")
if(output MATCHES "skipped: [^\n]*")
    execute_process(COMMAND ${CMAKE_COMMAND} -E echo "${CMAKE_MATCH_0}") # without the "-- " of message()
    return()
endif()
if(NOT code MATCHES "^[0-9]+$")
    message(FATAL_ERROR "no exit status (${code}), but:\n${output}")
endif()
if(code EQUAL 0 OR (NOT CODE STREQUAL "any" AND NOT code EQUAL CODE))
    message(FATAL_ERROR "exit status ${code} instead of ${CODE}:\n${output}")
endif()
if(OUTPUT AND NOT output MATCHES "${OUTPUT}")
    message(FATAL_ERROR "the output lacks '${OUTPUT}':\n${output}")
endif()
