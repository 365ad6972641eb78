// Which launcher started this process, from the environment alone: asking MPI would start it.
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "comm/comm_impl.h"

// The variable as a positive number; 0 when it is absent or is none.
static int64_t env_number(const char *name)
{
    const char *text = getenv(name);
    if (text == NULL)
        return 0;
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && value > 0 ? value : 0;
}

// Tasks of the srun step that this process belongs to; 0 outside a step. A batch script has SLURM_PROCID and
// SLURM_NTASKS too, but no step number, and a program that it starts directly runs alone.
static int64_t slurm_step_tasks(void)
{
    if (getenv("SLURM_STEP_ID") == NULL || getenv("SLURM_PROCID") == NULL)
        return 0;
    int64_t tasks = env_number("SLURM_STEP_NUM_TASKS");
    return tasks > 0 ? tasks : env_number("SLURM_NTASKS");
}

// srun --mpi=pmi2 gives tasks that only an MPI built for it can join; another one ends the process while it starts. Said before, by one task.
static void note_old_pmi(void)
{
    const char *rank = getenv("PMI_RANK");
    if (getenv("PMIX_RANK") == NULL && rank != NULL && strcmp(rank, "0") == 0)
        tv_log_warn("srun speaks PMI-1 or PMI-2 to its tasks; if MPI does not start now, start with srun --mpi=pmix");
}

int tv_launcher_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i]) != NULL)
            return (int)(env_number(names[i]) & INT_MAX);
    return 0;
}

tv_status tv_launcher_detect(tv_launcher *out)
{
    *out = (tv_launcher){NULL, 0};
    if (getenv("OMPI_COMM_WORLD_SIZE") != NULL) {
        *out = (tv_launcher){"mpirun", env_number("OMPI_COMM_WORLD_SIZE")};
        return TV_OK;
    }
    int64_t tasks = slurm_step_tasks();
    if (getenv("PMIX_RANK") != NULL || getenv("PMI_RANK") != NULL) {
        int64_t size = env_number("PMI_SIZE");
        if (tasks > 1)
            note_old_pmi();
        *out = (tv_launcher){tasks > 0 ? "srun" : "the PMI launcher", size > 0 ? size : tasks};
        return TV_OK;
    }
    if (tasks > 1)
        return TV_FAIL(TV_COMM,
                       "srun started %lld tasks without PMI, so each would take itself for the only rank: start with "
                       "srun --mpi=pmix",
                       (long long)tasks);
    return TV_OK;
}
