// Goes wrong in the way that its argument names, so that tests see how a parallel program ends then:
//   abort, exit   the last rank leaves without a word while the others wait in a collective
//   agree         the last rank fails and says so
//   stopped       all ranks stop on request
//   truncate      ranks broadcast different numbers of bytes, which MPI notices on the receiver
//   vote          the last rank gives a vote beyond its share
//   child         as truncate, but in a child communicator; the collective that comes next is the parent's
//   fewer, more, none, some   the last rank gives another number of bytes for each rank than the others expect
//   counts        the last rank leaves without a word while the others exchange counts
//   hang, hang-child, hang-rows   the last rank does not come to a sum, one of a child, or an exchange of rows
//   open          nothing but opening and closing
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/comm_impl.h"
#include "comm/hang.h"
#include "comm/row_exchange.h"
#include "comm/vote_exchange.h"

#define RANKS_MOST 4

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

static tv_status truncate_in_child(tv_comm *comm)
{
    tv_comm *child = NULL;
    char data[4096] = {0};
    TV_TRY(tv_comm_split(comm, 0, tv_comm_rank(comm), &child));
    tv_status st = tv_comm_broadcast_bytes(child, data, is_last(comm) ? 16 : sizeof data, 0);
    if (st != TV_OK)
        fprintf(stderr, "%s\n", tv_status_message());
    tv_comm_close(child);
    return tv_comm_barrier(comm);
}

// In chunks of 100: the others expect `expected` bytes of the last rank.
static tv_status give_other_rows(tv_comm *comm, int64_t expected, int64_t given)
{
    static uint8_t send[RANKS_MOST * 1000], recv[RANKS_MOST * 1000];
    int64_t send_bytes[RANKS_MOST] = {0}, recv_bytes[RANKS_MOST] = {0};
    int last = tv_comm_size(comm) - 1;
    if (is_last(comm))
        for (int r = 0; r < last; r++)
            send_bytes[r] = given;
    else
        recv_bytes[last] = expected;
    comm->chunk_items = 100;
    tv_all_to_all args = {send, send_bytes, recv, recv_bytes};
    TV_TRY(tv_comm_device_all_to_all_v_bytes(comm, &args, TV_WIRE_TOKENS, NULL));
    return tv_comm_barrier(comm);
}

static tv_status leave_counts(tv_comm *comm)
{
    const int32_t units[RANKS_MOST] = {0};
    const int64_t sent[RANKS_MOST] = {0};
    int64_t received[RANKS_MOST], buffer[2 * RANKS_MOST * (TV_ROW_RECORD + 1)];
    if (is_last(comm))
        exit(3);
    return tv_row_exchange_counts(comm, &(tv_row_counts){.experts = 1,
                                                         .layer = "block.0.moe",
                                                         .expected_units = units,
                                                         .sent = sent,
                                                         .received = received,
                                                         .buffer = buffer});
}

static tv_status hang(tv_comm *comm, const char *mode)
{
    tv_comm *child = NULL;
    int64_t one = 1;
    TV_TRY(tv_hang_folder(comm, "")); // ranks of a host see each other; no report is written
    TV_TRY(tv_comm_split(comm, 4, tv_comm_rank(comm), &child));
    if (is_last(comm))
        sleep(30);
    if (strcmp(mode, "hang-rows") == 0)
        return give_other_rows(comm, 10, 10);
    return tv_comm_sum_i64(strcmp(mode, "hang") == 0 ? comm : child, &one, 1, TV_WIRE_OTHER);
}

typedef struct rows_mode {
    const char *mode;
    int64_t expected, given;
} rows_mode;

static const rows_mode rows_modes[] = {
    {"fewer", 250, 200}, // the third message is empty
    {"more", 200, 250},
    {"none", 10, 0},
    {"some", 0, 10},
};

static tv_status go_wrong(tv_comm *comm, const char *mode)
{
    for (size_t i = 0; i < sizeof rows_modes / sizeof *rows_modes; i++)
        if (strcmp(mode, rows_modes[i].mode) == 0)
            return give_other_rows(comm, rows_modes[i].expected, rows_modes[i].given);
    if (strncmp(mode, "hang", 4) == 0)
        return hang(comm, mode);
    if (strcmp(mode, "child") == 0)
        return truncate_in_child(comm);
    if (strcmp(mode, "counts") == 0)
        return leave_counts(comm);
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
