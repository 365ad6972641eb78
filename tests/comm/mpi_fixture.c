#include "mpi_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tv_comm *fixture_comm;

int fixture_main(int argc, char **argv, int (*run)(void))
{
    tv_status st = tv_comm_open(&argc, &argv, &fixture_comm);
    if (st != TV_OK) {
        fprintf(stderr, "%s\n", tv_status_message());
        return 1;
    }
    int expected = argc > 1 ? atoi(argv[1]) : 0;
    if (tv_comm_size(fixture_comm) != expected || fixture_comm->ops == &tv_comm_self_ops) {
        fprintf(stderr, "%d ranks instead of %d, or not started by MPI\n", tv_comm_size(fixture_comm), expected);
        return 1;
    }
    int failed = run();
    tv_comm_close(fixture_comm);
    return failed != 0;
}

void fixture_expect(tv_status got, tv_status expected, const char *file, int line)
{
    if (got == expected)
        return;
    print_error("%s instead of %s: %s (%s)\n", tv_status_name(got), tv_status_name(expected), tv_status_message(),
                tv_status_place());
    _fail(file, line);
}

void fixture_expect_message(const char *part, const char *file, int line)
{
    if (strstr(tv_status_message(), part) != NULL)
        return;
    print_error("'%s' is not in the message '%s'\n", part, tv_status_message());
    _fail(file, line);
}
