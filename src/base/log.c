#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 4096, BAR_CELLS = 30 };

static struct {
    int rank, size;
    tv_log_level level;
    int bar_drawn; // guarded by the lock of stderr
} state = {.size = 1, .level = TV_LOG_INFO};

void tv_log_init(int rank, int size, tv_log_level level)
{
    state.rank = rank;
    state.size = size;
    state.level = level;
}

// The caller holds the lock of stderr.
static void clear_bar(void)
{
    if (state.bar_drawn)
        fputs("\r\033[K", stderr);
    state.bar_drawn = 0;
}

static int prefix(tv_log_level level, char *line, size_t bytes)
{
    static const char *const words[] = {[TV_LOG_ERROR] = "error", [TV_LOG_WARN] = "warning", [TV_LOG_DEBUG] = "debug"};
    if (level == TV_LOG_INFO)
        return 0;
    if (state.size > 1)
        return snprintf(line, bytes, "trivote: %s: rank %d: ", words[level], state.rank);
    return snprintf(line, bytes, "trivote: %s: ", words[level]);
}

void tv_log(tv_log_level level, const char *format, ...)
{
    if (level > state.level || (level == TV_LOG_INFO && state.rank != 0))
        return;
    // The whole line goes out in one write, so that lines of several ranks do not mix within a line.
    char line[LINE_BYTES];
    int used = prefix(level, line, sizeof line);
    va_list args;
    va_start(args, format);
    vsnprintf(line + used, sizeof line - 1 - (size_t)used, format, args); // keeps a byte for the newline
    va_end(args);
    size_t length = strlen(line);
    line[length++] = '\n';

    FILE *out = level == TV_LOG_INFO ? stdout : stderr;
    flockfile(stderr);
    clear_bar();
    fwrite(line, 1, length, out);
    fflush(out);
    funlockfile(stderr);
}

void tv_log_progress(long long done, long long total, const char *note)
{
    if (state.rank != 0 || state.level < TV_LOG_INFO || total <= 0 || !isatty(STDERR_FILENO))
        return;
    double part = done < 0 ? 0.0 : done > total ? 1.0 : (double)done / (double)total;
    char cells[BAR_CELLS + 1];
    for (int i = 0; i < BAR_CELLS; i++)
        cells[i] = i < (int)(part * BAR_CELLS) ? '#' : '.';
    cells[BAR_CELLS] = '\0';
    flockfile(stderr);
    fprintf(stderr, "\r[%s] %3d%% %lld/%lld %s\033[K", cells, (int)(part * 100.0), done, total, note ? note : "");
    fflush(stderr);
    state.bar_drawn = 1;
    funlockfile(stderr);
}

void tv_log_progress_end(void)
{
    flockfile(stderr);
    clear_bar();
    fflush(stderr);
    funlockfile(stderr);
}
