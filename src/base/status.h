// Status codes and the error record of the calling thread.
//
// Every function that can fail returns a tv_status. The function that finds the fault writes one message with TV_FAIL;
// callers pass the code on with TV_TRY or TV_TRY_GOTO. Nothing below main exits or aborts.
#ifndef TV_BASE_STATUS_H
#define TV_BASE_STATUS_H

// X(name, exit code of the program, text)
#define TV_STATUS_LIST(X)                                                                                              \
    X(OK, 0, "ok")                                                                                                     \
    X(USAGE, 2, "wrong arguments")                                                                                     \
    X(CONFIG, 2, "wrong configuration")                                                                                \
    X(MEMORY, 1, "out of memory")                                                                                      \
    X(IO, 1, "input or output failed")                                                                                 \
    X(CORPUS, 1, "unusable corpus")                                                                                    \
    X(CHECKPOINT, 1, "unusable checkpoint")                                                                            \
    X(COMM, 1, "communication failed")                                                                                 \
    X(NUMERIC, 1, "NaN or Inf")                                                                                        \
    X(BACKEND, 1, "backend failed or absent")                                                                          \
    X(REMOTE, 1, "another rank failed")                                                                                \
    X(INTERNAL, 1, "internal error")                                                                                   \
    X(HANG, 70, "a rank hangs")                                                                                        \
    X(DISK_FULL, 74, "no room on the disk")                                                                            \
    X(HELP, 0, "help was asked for and printed")                                                                       \
    X(STOPPED, 75, "stopped on request after saving")

typedef enum tv_status {
#define TV_STATUS_ENUM(name, exit_code, text) TV_##name,
    TV_STATUS_LIST(TV_STATUS_ENUM)
#undef TV_STATUS_ENUM
        TV_STATUS_COUNT
} tv_status;

// Name ("CONFIG"), text and process exit code of a status.
const char *tv_status_name(tv_status status);
const char *tv_status_text(tv_status status);
int tv_status_exit_code(tv_status status);

// Record a message (printf format, at most 1023 bytes kept) and its place for the calling thread; returns `status`.
tv_status tv_status_set(tv_status status, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
// Prefix the recorded message with "text: ", for a caller that knows the context (a file, a tensor). Returns `status`.
tv_status tv_status_context(tv_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
// The calling thread's last message ("" when none) and its place ("status.c:12").
const char *tv_status_message(void);
const char *tv_status_place(void);

#define TV_FAIL(code, ...) tv_status_set((code), __FILE__, __LINE__, __VA_ARGS__)

// Return from the function when `call` fails.
#define TV_TRY(call)                                                                                                   \
    do {                                                                                                               \
        tv_status tv_try_status_ = (call);                                                                             \
        if (tv_try_status_ != TV_OK)                                                                                   \
            return tv_try_status_;                                                                                     \
    } while (0)

// Go to the function's one exit when `call` fails, keeping the code in `st`.
#define TV_TRY_GOTO(st, label, call)                                                                                   \
    do {                                                                                                               \
        (st) = (call);                                                                                                 \
        if ((st) != TV_OK)                                                                                             \
            goto label;                                                                                                \
    } while (0)

#endif
