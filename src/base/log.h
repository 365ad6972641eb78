// Log lines of one rank, and the progress bar.
#ifndef TV_BASE_LOG_H
#define TV_BASE_LOG_H

typedef enum tv_log_level { TV_LOG_ERROR, TV_LOG_WARN, TV_LOG_INFO, TV_LOG_DEBUG } tv_log_level;

// rank/size are put in front of warnings and errors when size > 1; INFO is printed by rank 0 only, to stdout; WARN and ERROR
// go to stderr on every rank. level: the most talkative one printed.
void tv_log_init(int rank, int size, tv_log_level level);
void tv_log(tv_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define tv_log_error(...) tv_log(TV_LOG_ERROR, __VA_ARGS__)
#define tv_log_warn(...) tv_log(TV_LOG_WARN, __VA_ARGS__)
#define tv_log_info(...) tv_log(TV_LOG_INFO, __VA_ARGS__)
#define tv_log_debug(...) tv_log(TV_LOG_DEBUG, __VA_ARGS__)

// Draw (rank 0 and stderr a terminal only) or clear a one-line progress bar; `done` of `total`, `note` after it. A log line
// clears the bar first.
void tv_log_progress(long long done, long long total, const char *note);
void tv_log_progress_end(void);

#endif
