// base/log.h: what goes to which stream. Each case runs in a child whose stdout and stderr are caught; it leaves by
// _exit, so a line that was not flushed would be missing.
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"

enum { CAUGHT_BYTES = 16384 };

static char caught_out[CAUGHT_BYTES], caught_err[CAUGHT_BYTES];

static void read_back(int fd, char *text)
{
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    ssize_t bytes = read(fd, text, CAUGHT_BYTES - 1);
    assert_true(bytes >= 0);
    text[bytes] = '\0';
}

static void run_child(void (*body)(void), int out, int err)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(out, STDOUT_FILENO);
        dup2(err, STDERR_FILENO);
        body();
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void catch_files(void (*body)(void))
{
    FILE *out = tmpfile(), *err = tmpfile();
    assert_true(out && err);
    run_child(body, fileno(out), fileno(err));
    read_back(fileno(out), caught_out);
    read_back(fileno(err), caught_err);
    fclose(out);
    fclose(err);
}

// stderr is a terminal here.
static void catch_terminal(void (*body)(void))
{
    FILE *out = tmpfile();
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0 || grantpt(terminal) || unlockpt(terminal)) {
        print_message("no pseudo-terminal here\n");
        skip();
    }
    int err = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    assert_true(out && err >= 0);
    run_child(body, fileno(out), err);
    read_back(fileno(out), caught_out);
    size_t used = 0;
    struct pollfd ready = {.fd = terminal, .events = POLLIN};
    while (used < CAUGHT_BYTES - 1 && poll(&ready, 1, 0) == 1 && (ready.revents & POLLIN)) {
        ssize_t bytes = read(terminal, caught_err + used, CAUGHT_BYTES - 1 - used);
        assert_true(bytes > 0);
        used += (size_t)bytes;
    }
    caught_err[used] = '\0';
    close(err);
    close(terminal);
    fclose(out);
}

static void say_everything(void)
{
    tv_log_error("e%d", 1);
    tv_log_warn("w%s", "2");
    tv_log_info("i%d", 3);
    tv_log_debug("d%d", 4);
    tv_log_progress(1, 2, "note");
    tv_log_progress_end();
}

static void as_one(void)
{
    tv_log_init(0, 1, TV_LOG_INFO);
    say_everything();
}

static void as_first_of_four(void)
{
    tv_log_init(0, 4, TV_LOG_INFO);
    say_everything();
}

static void as_third_of_four(void)
{
    tv_log_init(2, 4, TV_LOG_DEBUG);
    say_everything();
}

static void as_quiet(void)
{
    tv_log_init(0, 1, TV_LOG_WARN);
    say_everything();
}

static void as_silent(void)
{
    tv_log_init(0, 1, TV_LOG_ERROR);
    say_everything();
}

static void test_streams(void **state)
{
    (void)state;
    catch_files(say_everything); // before tv_log_init: one rank, INFO
    assert_string_equal(caught_out, "i3\n");
    assert_string_equal(caught_err, "trivote: error: e1\ntrivote: warning: w2\n");
    catch_files(as_one);
    assert_string_equal(caught_out, "i3\n");
    assert_string_equal(caught_err, "trivote: error: e1\ntrivote: warning: w2\n");
    catch_files(as_first_of_four);
    assert_string_equal(caught_out, "i3\n");
    assert_string_equal(caught_err, "trivote: error: rank 0: e1\ntrivote: warning: rank 0: w2\n");
    catch_files(as_third_of_four);
    assert_string_equal(caught_out, "");
    assert_string_equal(caught_err,
                        "trivote: error: rank 2: e1\ntrivote: warning: rank 2: w2\ntrivote: debug: rank 2: d4\n");
}

static void test_levels(void **state)
{
    (void)state;
    catch_files(as_quiet);
    assert_string_equal(caught_out, "");
    assert_string_equal(caught_err, "trivote: error: e1\ntrivote: warning: w2\n");
    catch_files(as_silent);
    assert_string_equal(caught_err, "trivote: error: e1\n");
}

static void say_long(void)
{
    static char text[9000];
    memset(text, 'y', sizeof text - 1);
    tv_log_info("%s", text);
    tv_log_warn("%s", text);
    tv_log_info("next");
}

// A line too long for the buffer is cut, and still ends its line.
static void test_long_line(void **state)
{
    (void)state;
    catch_files(say_long);
    char *end = strchr(caught_out, '\n');
    assert_non_null(end);
    assert_true(end - caught_out > 4000);
    assert_string_equal(end, "\nnext\n");
    end = strchr(caught_err, '\n');
    assert_non_null(end);
    assert_string_equal(end, "\n");
    assert_memory_equal(caught_err, "trivote: warning: yyy", 21);
}

static void draw(void)
{
    tv_log_init(0, 2, TV_LOG_INFO);
    tv_log_progress(5, 10, "loss 1.25");
    tv_log_warn("beside the bar");
    tv_log_warn("no bar now");
    tv_log_progress(99, 10, NULL);
    tv_log_progress(1, 0, "no total");
    tv_log_progress_end();
    tv_log_progress_end();
}

static void draw_as_second(void)
{
    tv_log_init(1, 2, TV_LOG_INFO);
    tv_log_progress(5, 10, "loss 1.25");
    tv_log_progress_end();
}

static void test_progress(void **state)
{
    (void)state;
    catch_files(draw); // no terminal: no bar, no control bytes
    assert_string_equal(caught_err, "trivote: warning: rank 0: beside the bar\ntrivote: warning: rank 0: no bar now\n");

    catch_terminal(draw);
    assert_string_equal(caught_err, "\r[###############...............]  50% 5/10 loss 1.25\033[K"
                                    "\r\033[Ktrivote: warning: rank 0: beside the bar\r\n"
                                    "trivote: warning: rank 0: no bar now\r\n"
                                    "\r[##############################] 100% 99/10 \033[K"
                                    "\r\033[K");
    assert_string_equal(caught_out, "");
    catch_terminal(draw_as_second);
    assert_string_equal(caught_err, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_long_line),
        cmocka_unit_test(test_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
