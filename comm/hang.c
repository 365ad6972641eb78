#include "comm/hang.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "comm/comm_impl.h"
#include "comm/hang_rank.h"
#include "comm/message.h"

#define GRACE_MS 1500      // for the reports of the others
#define LISTEN_MS 5000     // for the message of a lower rank, which may have begun later
#define GIVE_UP_SECONDS 20 // a report that takes longer hangs itself
#define NAMED 4            // ranks and groups of them that a message describes one by one
#define SILENT_SECONDS 2.5 // a process whose watch was not awake for so long is stopped or gone

static char folder[3072];
static tv_hang_run named;                                               // of tv_hang_folder
static const tv_hang_run unnamed = {.folder = ""}, *current = &unnamed; // set when `named` is whole

tv_status tv_hang_folder(tv_comm *comm, const char *dir)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t run = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    TV_TRY(tv_comm_broadcast_bytes(comm, &run, sizeof run, 0));
    snprintf(folder, sizeof folder, "%s", dir);
    named = (tv_hang_run){.folder = folder, .id = run};
    __atomic_store_n(&current, &named, __ATOMIC_RELEASE);
    return tv_board_open(comm, run);
}

static void sleep_ms(int64_t ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

// All ranks, and those that are spoken of.
typedef struct crowd {
    tv_hang_rank *ranks;
    char *chosen;
    int size;
} crowd;

// "rank 3" or "ranks 0-2, 5"; returns how many.
static int add_chosen(tv_message *t, const crowd *c)
{
    int count = 0, first = 1;
    for (int r = 0; r < c->size; r++)
        count += c->chosen[r];
    tv_message_add(t, count == 1 ? "rank " : "ranks ");
    for (int r = 0; r < c->size; r++) {
        int end = r;
        while (c->chosen[r] && end + 1 < c->size && c->chosen[end + 1])
            end++;
        if (!c->chosen[r])
            continue;
        tv_message_add(t, first ? "%d" : ", %d", r);
        if (end > r)
            tv_message_add(t, end > r + 1 ? "-%d" : ", %d", end);
        first = 0;
        r = end;
    }
    return count;
}

static void add_entry(tv_message *t, const tv_ring_entry *e)
{
    tv_message_add(t, "collective %lld (%s, %s, %lld bytes", (long long)e->number, tv_op_text((tv_op)e->op),
                   tv_wire_text(e->wire), (long long)e->bytes);
    if (e->color >= 0)
        tv_message_add(t, ", child %lld", (long long)e->color);
    tv_message_add(t, ")");
}

static void add_place(tv_message *t, const tv_hang_rank *r)
{
    if (r->step > 0)
        tv_message_add(t, "step %lld, ", (long long)r->step);
    tv_message_add(t, "%s", tv_phase_text(r->phase));
}

// The ranks that wait where `like` waits, and takes them off the list.
static void add_waiting(tv_message *t, crowd *c, char *done, const tv_hang_rank *like)
{
    for (int r = 0; r < c->size; r++) {
        const tv_hang_rank *other = &c->ranks[r];
        c->chosen[r] = !done[r] && other->inside && other->last.number == like->last.number &&
                       other->last.op == like->last.op && other->last.color == like->last.color;
        done[r] |= c->chosen[r];
    }
    int count = add_chosen(t, c);
    tv_message_add(t, count == 1 ? " waits in " : " wait in ");
    add_entry(t, &like->last);
    tv_message_add(t, " of ");
    add_place(t, like);
    tv_message_add(t, " for %.1f s", like->entered);
}

// One that does not wait, or gives no sign of life: the one to look at.
static void add_absent(tv_message *t, int rank, const tv_hang_rank *r, const tv_hang_rank *like)
{
    int behind = r->last.number < like->last.number;
    tv_message_add(t, "; rank %d %s: last seen in ", rank, behind ? "did not arrive" : "is not there any more");
    add_place(t, r);
    if (r->last.number > 0) {
        tv_message_add(t, ", %.1f s after ", r->left < 0 ? r->entered : r->left);
        add_entry(t, &r->last);
    }
    if (r->beat > SILENT_SECONDS)
        tv_message_add(t, "; no sign of life from its process for %.1f s (stopped, gone, or its host overloaded)",
                       r->beat);
}

// Others that wait elsewhere, those that do not wait, and those of which nothing is known.
static void add_others(tv_message *t, crowd *c, char *done, const tv_hang_rank *own)
{
    int groups = 0, absent = 0, unknown = 0;
    for (int r = 0; r < c->size && groups < NAMED; r++)
        if (!done[r] && c->ranks[r].inside) {
            tv_message_add(t, "; ");
            add_waiting(t, c, done, &c->ranks[r]);
            groups++;
        }
    for (int r = 0; r < c->size; r++)
        if (!done[r] && c->ranks[r].known && !c->ranks[r].inside && ++absent <= NAMED)
            add_absent(t, r, &c->ranks[r], own);
    if (absent > NAMED)
        tv_message_add(t, "; %d more ranks did not arrive", absent - NAMED);
    for (int r = 0; r < c->size; r++)
        unknown += c->chosen[r] = !c->ranks[r].known;
    if (unknown == 0)
        return;
    tv_message_add(t, "; nothing is heard of ");
    add_chosen(t, c);
}

static void add_start(tv_message *t, double waited)
{
    tv_message_add(
        t,
        "MPI has not started for %.0f s: a rank is missing, or the ranks do not find each other (TV_START_TIMEOUT sets "
        "the seconds)",
        waited);
}

static void add_collective(tv_message *t, crowd *c, char *done, double waited)
{
    const tv_hang_rank *own = &c->ranks[tv_board_rank()];
    if (own->last.op == TV_OP_START) {
        add_start(t, waited);
        return;
    }
    add_waiting(t, c, done, own);
    add_others(t, c, done, own);
}

static void add_progress(tv_message *t, const tv_hang_rank *own, double waited)
{
    tv_message_add(t, "nothing moves for %.1f s in ", waited);
    add_place(t, own);
    if (own->last.number == 0)
        return;
    tv_message_add(t, ", after ");
    add_entry(t, &own->last);
}

// Past stdio, whose locks the thread that hangs may hold.
static void print(tv_message *t, int written)
{
    char line[3600], rank[32] = "";
    if (tv_board_size() > 1)
        snprintf(rank, sizeof rank, "rank %d: ", tv_board_rank());
    int n = snprintf(line, sizeof line, "trivote: error: %s%s; the limit is %.0f s; nothing is saved%s%s%s\n", rank,
                     t->bytes, tv_watch_limit(), written ? "; each rank's last collectives are in " : "",
                     written ? folder : "", written ? "/hang-rank-*.json" : "");
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
        return;
}

// Who waits in a collective knows more than who hangs outside of them, and names it.
static int speaks(const crowd *c)
{
    for (int r = 0; r < c->size; r++)
        if (c->ranks[r].reported == TV_HANG_COLLECTIVE)
            return r == tv_board_rank();
    return 1;
}

static void tell(const tv_hang_run *run, tv_hang_kind kind, double waited, int written)
{
    char bytes[3000] = "";
    tv_message t = {bytes, sizeof bytes, 0};
    int size = tv_board_size(), mine = 1;
    crowd c = {calloc((size_t)size, sizeof *c.ranks), calloc((size_t)size, 1), size};
    char *done = calloc((size_t)size, 1);
    if (c.ranks && c.chosen && done) {
        for (int r = 0; r < size; r++)
            tv_hang_rank_read(run, r, &c.ranks[r]);
        mine = speaks(&c);
        if (kind == TV_HANG_PROGRESS)
            add_progress(&t, &c.ranks[tv_board_rank()], waited);
        else
            add_collective(&t, &c, done, waited);
    }
    if (mine)
        print(&t, written);
    else
        sleep_ms(LISTEN_MS); // the launcher ends all ranks with the first: not before the message
    free(done);
    free(c.chosen);
    free(c.ranks);
}

void tv_hang_report(tv_hang_kind kind, double waited)
{
    static int taken, over;
    if (__atomic_exchange_n(&taken, 1, __ATOMIC_ACQ_REL)) {
        while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE))
            sleep_ms(10);
        return;
    }
    signal(SIGALRM, SIG_DFL);
    alarm(GIVE_UP_SECONDS);
    __atomic_store_n(&tv_board_mine()->reported, kind, __ATOMIC_RELAXED);
    const tv_hang_run *run = __atomic_load_n(&current, __ATOMIC_ACQUIRE);
    int written = tv_hang_rank_write(run, kind, waited);
    sleep_ms(GRACE_MS);
    tell(run, kind, waited, written);
    alarm(0);
    __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
}
