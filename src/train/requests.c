#include "train/requests.h"

#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "train/trainer.h"

#define SAVE_MARGIN 1.5
#define STEP_MARGIN 2.0
#define SECONDS_MARGIN 1.0
#define SAVE_BYTES_A_SECOND 100e6

// Any thread may get the signal, MPI's own too, so sig_atomic_t is not enough; a handler may use atomics that need no lock.
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "the signal handler needs lock-free atomics");
static atomic_int save_wanted, stop_wanted, interrupted;
static double installed_at;

static void on_signal(int number)
{
    if (number == SIGUSR1) {
        atomic_store(&save_wanted, 1);
        return;
    }
    if (number == SIGINT && atomic_exchange(&interrupted, 1)) {
        // The second one: let the default action end the process.
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
        return;
    }
    atomic_store(&stop_wanted, 1);
}

void tv_requests_install(void)
{
    static const int numbers[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGINT};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    installed_at = tv_clock_seconds();
}

// The variable as a number of seconds; `otherwise` when it is absent or is none.
static double env_seconds(const char *name, double otherwise)
{
    const char *text = getenv(name);
    char *end = NULL;
    double value = text ? strtod(text, &end) : 0;
    return text && end != text && *end == '\0' && value >= 0 ? value : otherwise;
}

static void earlier(double *deadline, double at)
{
    if (*deadline == 0 || at < *deadline)
        *deadline = at;
}

void tv_requests_open(tv_requests *requests, const char *dir, double max_seconds)
{
    double job_end = env_seconds("SLURM_JOB_END_TIME", 0);
    *requests = (tv_requests){.dir = dir, .save_guess = 1};
    if (max_seconds > 0)
        earlier(&requests->deadline, (installed_at > 0 ? installed_at : tv_clock_seconds()) + max_seconds);
    if (job_end > 0)
        earlier(&requests->deadline, tv_clock_seconds() + job_end - (double)time(NULL));
    if (getenv("OMPI_COMM_WORLD_SIZE"))
        requests->kill_seconds = env_seconds("OMPI_MCA_odls_base_sigkill_timeout", 1);
}

void tv_requests_expect(tv_requests *requests, size_t state_bytes)
{
    requests->save_guess = 1 + (double)state_bytes / SAVE_BYTES_A_SECOND;
}

void tv_requests_step(tv_requests *requests, double seconds)
{
    if (seconds > requests->step_seconds)
        requests->step_seconds = seconds;
}

void tv_requests_saved(tv_requests *requests, double seconds)
{
    if (seconds > requests->save_seconds)
        requests->save_seconds = seconds;
    if (requests->kill_seconds == 0 || requests->save_seconds <= requests->kill_seconds || requests->warned)
        return;
    requests->warned = 1;
    if (requests->dir)
        tv_log_warn(
            "a save takes %.1f s, but mpirun kills its processes %g s after it sent them SIGTERM: start it with --mca "
            "odls_base_sigkill_timeout %.0f, or stop the run by SIGUSR2 or the file 'stop'",
            requests->save_seconds, requests->kill_seconds, ceil(SAVE_MARGIN * requests->save_seconds + 1));
}

// The file `name` of the run folder is there; it is taken away.
static int take_file(const tv_requests *requests, const char *name)
{
    char path[4096];
    if (!requests->dir || snprintf(path, sizeof path, "%s/%s", requests->dir, name) >= (int)sizeof path)
        return 0;
    if (access(path, F_OK) != 0)
        return 0;
    if (unlink(path) != 0)
        tv_log_warn("%s is honoured, but cannot be removed; do it before the next start", path);
    return 1;
}

static int time_is_over(const tv_requests *requests)
{
    double save = requests->save_seconds > 0 ? requests->save_seconds : requests->save_guess;
    double needed = SAVE_MARGIN * save + STEP_MARGIN * requests->step_seconds + SECONDS_MARGIN;
    return requests->deadline > 0 && tv_clock_seconds() + needed >= requests->deadline;
}

static uint64_t stop_flags(tv_requests *requests)
{
    if (!atomic_load(&stop_wanted) && take_file(requests, "stop"))
        atomic_store(&stop_wanted, 1);
    if (atomic_load(&stop_wanted))
        return TV_FLAG_STOP;
    return time_is_over(requests) ? TV_FLAG_STOP | TV_FLAG_TIME : 0;
}

uint64_t tv_requests_take(void *source)
{
    tv_requests *requests = source;
    uint64_t flags = stop_flags(requests);
    int by_signal = atomic_exchange(&save_wanted, 0);
    return take_file(requests, "save") || by_signal ? flags | TV_FLAG_SAVE : flags;
}

int tv_requests_stop(void *requests) { return (int)stop_flags(requests); }

tv_status tv_requests_agree(tv_requests *requests, tv_comm *comm, int *stop)
{
    int64_t wanted = tv_requests_stop(requests);
    TV_TRY(tv_comm_max_i64(comm, &wanted, 1, TV_WIRE_OTHER));
    *stop = (int)wanted;
    return TV_OK;
}
