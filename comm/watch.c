#include "comm/watch.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "comm/hang.h"
#include "comm/ring.h"

#define SECOND 1000000000LL
#define OVERSLEPT (2 * SECOND) // beyond what was asked for: the process was stopped

static struct {
    pthread_t thread;
    int open;
    int64_t limit, start_limit, step_limit; // ns
    int64_t watching;                       // progress too
    pthread_mutex_t lock;
    pthread_cond_t turn;
    int over; // under lock
} watch = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const char *const phase_texts[] = {
#define PHASE_TEXT(id, text) text,
    TV_PHASE_LIST(PHASE_TEXT)
#undef PHASE_TEXT
};

const char *tv_phase_text(int64_t phase) { return phase_texts[phase >= 0 && phase < TV_PHASE_COUNT ? phase : 0]; }

static int64_t load(const int64_t *value) { return __atomic_load_n(value, __ATOMIC_RELAXED); }

static void store(int64_t *value, int64_t x) { __atomic_store_n(value, x, __ATOMIC_RELAXED); }

static int64_t later(int64_t a, int64_t b) { return a > b ? a : b; }

void tv_watch_moves(void) { store(&tv_board_mine()->marked, tv_ring_now()); }

void tv_watch_mark(tv_phase phase, int64_t step)
{
    tv_seat *seat = tv_board_mine();
    store(&seat->step, step);
    store(&seat->phase, phase);
    store(&seat->marked, tv_ring_now());
}

void tv_watch_limits(double start, double steps)
{
    store(&watch.start_limit, (int64_t)(start * SECOND));
    store(&watch.step_limit, (int64_t)(steps * SECOND));
    store(&watch.limit, watch.start_limit);
    tv_watch_mark(TV_PHASE_START, 0);
    store(&watch.watching, 1);
}

void tv_watch_begin_steps(void)
{
    if (load(&watch.watching))
        store(&watch.limit, watch.step_limit);
}

double tv_watch_limit(void)
{
    int64_t limit = load(&watch.limit);
    return limit == 0 ? TV_WATCH_START_SECONDS : (double)limit / SECOND;
}

// Another rank of this host reports a hang: this one, which waits as well, has seen enough.
static int others_report(void)
{
    tv_seat seat;
    for (int r = 0; r < tv_board_size(); r++)
        if (r != tv_board_rank() && tv_board_read(r, &seat) && seat.reported)
            return 1;
    return 0;
}

// Seconds that this process hangs, 0 when it does not. since: it runs without a break from there on.
static double look(int64_t now, int64_t since, tv_hang_kind *kind)
{
    tv_seat seat;
    int64_t limit = load(&watch.limit);
    tv_board_read(tv_board_rank(), &seat);
    int inside = seat.last.number > 0 && seat.last.left == 0;
    int64_t waited = now - later(seat.last.entered, since);
    // The thread that waits for a GPU has a deadline of its own.
    int polled = seat.last.op == TV_OP_GPU_START || seat.last.op == TV_OP_GPU_WAIT;
    *kind = TV_HANG_COLLECTIVE;
    if (inside && !polled && (waited > limit || (waited > limit / 4 && others_report())))
        return (double)waited / SECOND;
    *kind = TV_HANG_PROGRESS;
    waited = now - later(since, later(seat.marked, later(seat.last.entered, seat.last.left)));
    return load(&watch.watching) && waited > limit + limit / 4 + SECOND ? (double)waited / SECOND : 0;
}

// Sleeps a tenth of the limit, at most a second; 0 when the watch is over.
static int sleep_a_while(int64_t *asked)
{
    struct timespec until;
    int64_t limit = load(&watch.limit) / 10;
    *asked = limit < SECOND ? limit : SECOND;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += *asked % SECOND;
    until.tv_sec += *asked / SECOND + until.tv_nsec / SECOND;
    until.tv_nsec %= SECOND;
    pthread_mutex_lock(&watch.lock);
    while (!watch.over && pthread_cond_timedwait(&watch.turn, &watch.lock, &until) == 0) {
    }
    int goes_on = !watch.over;
    pthread_mutex_unlock(&watch.lock);
    return goes_on;
}

static void *run(void *unused)
{
    int64_t now = tv_ring_now(), since = now, asked;
    tv_hang_kind kind;
    (void)unused;
    for (;;) {
        int64_t before = now;
        store(&tv_board_mine()->beat, now);
        if (!sleep_a_while(&asked))
            return NULL;
        now = tv_ring_now();
        if (now - before > asked + OVERSLEPT)
            since = now;
        double waited = look(now, since, &kind);
        if (waited > 0) {
            tv_hang_report(kind, waited);
            _exit(tv_status_exit_code(TV_HANG));
        }
    }
}

static double start_seconds(void)
{
    const char *text = getenv("TV_START_TIMEOUT");
    char *end = NULL;
    double seconds = text ? strtod(text, &end) : 0;
    return text && end != text && *end == '\0' && seconds >= 0.1 && seconds <= 1e6 ? seconds : TV_WATCH_START_SECONDS;
}

tv_status tv_watch_open(void)
{
    pthread_condattr_t clock;
    if (watch.open)
        return TV_OK;
    store(&watch.limit, (int64_t)(start_seconds() * SECOND));
    store(&tv_board_mine()->beat, tv_ring_now());
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&watch.turn, &clock);
    pthread_condattr_destroy(&clock);
    watch.over = 0;
    if (!tv_thread_start(&watch.thread, run, NULL))
        return TV_FAIL(TV_INTERNAL, "the watch over hangs cannot start its thread; is the limit of processes reached?");
    watch.open = 1;
    return TV_OK;
}

void tv_watch_close(void)
{
    if (!watch.open)
        return;
    pthread_mutex_lock(&watch.lock);
    watch.over = 1;
    pthread_cond_signal(&watch.turn);
    pthread_mutex_unlock(&watch.lock);
    pthread_join(watch.thread, NULL);
    pthread_cond_destroy(&watch.turn);
    watch.open = 0;
    store(&watch.watching, 0);
}
