// Goes wrong in the way that its argument names, so that tests see how a parallel program ends then:
//   abort, exit   the last rank leaves without a word while the others wait in a collective
//   agree         the last rank fails and says so
//   stopped       all ranks stop on request
//   truncate      ranks broadcast different numbers of bytes, which MPI notices on the receiver
//   vote          the last rank gives a vote beyond its share
//   open          nothing but opening and closing
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/vote_exchange.h"

static int is_last(const tv_comm *comm) { return tv_comm_rank(comm) == tv_comm_size(comm) - 1; }

static tv_status leave_without_a_word(tv_comm *comm, int by_abort)
{
    if (is_last(comm)) {
        if (by_abort)
            abort();
        exit(3);
    }
    int64_t one = 1;
    return tv_comm_sum_i64(comm, &one, 1, TV_WIRE_OTHER);
}

static tv_status truncate_broadcast(tv_comm *comm)
{
    char data[4096] = {0};
    tv_status st = tv_comm_broadcast_bytes(comm, data, is_last(comm) ? 16 : sizeof data, 0);
    if (st == TV_OK)
        return tv_comm_barrier(comm);
    fprintf(stderr, "%s\n", tv_status_message());
    return tv_comm_barrier(comm);
}

// The last rank fails in the first exchange and says so to nobody; the others go on to a collective that it never
// enters.
static tv_status give_wrong_vote(tv_comm *comm)
{
    _Alignas(4) int16_t votes[2] = {0};
    votes[0] = (int16_t)(is_last(comm) ? 100 : 0);
    TV_TRY(tv_vote_sum(comm, &(tv_votes){votes, 16, 12, 2}, 1, NULL));
    TV_TRY(tv_vote_finish(comm, NULL));
    return tv_comm_barrier(comm);
}

static tv_status go_wrong(tv_comm *comm, const char *mode)
{
    if (strcmp(mode, "abort") == 0 || strcmp(mode, "exit") == 0)
        return leave_without_a_word(comm, strcmp(mode, "abort") == 0);
    if (strcmp(mode, "agree") == 0)
        return tv_comm_agree(comm, is_last(comm) ? TV_FAIL(TV_CONFIG, "the last rank says no") : TV_OK);
    if (strcmp(mode, "stopped") == 0)
        return tv_comm_agree(comm, TV_FAIL(TV_STOPPED, "stopped on request"));
    if (strcmp(mode, "truncate") == 0)
        return truncate_broadcast(comm);
    if (strcmp(mode, "vote") == 0)
        return give_wrong_vote(comm);
    return TV_OK;
}

int main(int argc, char **argv)
{
    tv_comm *comm = NULL;
    tv_status st = tv_comm_open(&argc, &argv, &comm);
    if (st == TV_OK && argc > 1)
        st = go_wrong(comm, argv[1]);
    if (st != TV_OK)
        fprintf(stderr, "%s\n", tv_status_message());
    tv_comm_close(comm);
    return tv_status_exit_code(st);
}
