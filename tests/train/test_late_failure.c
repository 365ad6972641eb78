// A rank that fails after the guard, while votes travel already, or in an earlier unit while others send it rows for its
// experts, stops all ranks of the step before anything is applied: the state is as before, and the step can be tried again.
// Started under mpirun with 2 or 3 ranks; an argument names the backend. With "hang" the last rank stays in its backward on a
// GPU, and the others must say so in time. With "lost" its op fails among exchanges of experts' rows: it must leave, and with
// that end the others, who wait for it.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "comm/comm_impl.h"
#include "train/trainer.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            return TV_FAIL(TV_INTERNAL, "%s does not hold", #condition);                                               \
    } while (0)

// The backend of the trainer: the sound one, but for one op of the failing rank's last unit.
static tv_backend faulty;
static const tv_backend *sound;
static int calls_left; // until the op goes wrong; never when negative

static tv_status norm_backward_fails(const tv_norm_backward_args *args, void *stream)
{
    if (calls_left >= 0 && calls_left-- == 0)
        return TV_FAIL(TV_BACKEND, "a kernel that would not start");
    return sound->norm_backward(args, stream);
}

static tv_status quantize_channels_faults(const tv_quantize_channels_args *args, void *stream)
{
    const int32_t one = 1;
    TV_TRY(sound->quantize_channels(args, stream));
    if (calls_left >= 0 && calls_left-- == 0)
        return sound->copy(args->fault, &one, sizeof one, TV_COPY_TO_DEVICE, stream);
    return TV_OK;
}

static tv_status norm_backward_hangs(const tv_norm_backward_args *args, void *stream)
{
    if (calls_left >= 0 && calls_left-- == 0)
        sleep(40);
    return sound->norm_backward(args, stream);
}

// A failure to try: of which model, in which of the last rank's units, and what all ranks must say.
typedef struct failure {
    const char *config;
    int unit; // of the step's 6
    tv_status wanted;
    const char *told;
} failure;

#define DENSE "tests/data/invariance.yaml"
#define EXPERTS "tests/data/invariance-moe.yaml"
#define TABLES "tests/data/invariance-vq.yaml"

static tv_status open_trainer(tv_trainer *trainer, tv_config *config, const char *file, tv_comm *comm)
{
    TV_TRY(tv_config_init(config));
    TV_TRY(tv_config_read_file(config, file));
    TV_TRY(tv_config_set(config, "train.units=6"));
    TV_TRY(tv_config_set(config, "vote.bucket_bytes=2000"));
    return tv_trainer_open(trainer, config, comm, &faulty);
}

// The first step fails as wanted on the last rank and is told to the others; tried again it ends as if it never had. calls: of
// the op before the one that goes wrong.
static tv_status fail_once(tv_trainer *trainer, int calls, const failure *f, tv_hash128 expected)
{
    tv_hash128 before, after;
    tv_step_report report;
    int last = tv_comm_rank(trainer->comm) == tv_comm_size(trainer->comm) - 1;
    int64_t buckets = trainer->box.buckets;
    TV_TRY(tv_trainer_digest(trainer, &before));
    calls_left = last ? calls : -1;
    tv_status st = tv_trainer_step(trainer, 0, &report);
    CHECK(st == (last ? f->wanted : TV_REMOTE));
    CHECK(strstr(tv_status_message(), f->told));
    CHECK((trainer->box.buckets > buckets) == (f->unit == 5)); // votes travel from the last unit on
    calls_left = -1;
    TV_TRY(tv_trainer_digest(trainer, &after));
    CHECK(tv_hash_equal(before, after) && trainer->step == 0);
    TV_TRY(tv_trainer_step(trainer, 0, &report));
    TV_TRY(tv_trainer_digest(trainer, &after));
    CHECK(tv_hash_equal(after, expected));
    return TV_OK;
}

// How often a unit's backward calls the two ops: counted, so that another model does not silently miss the last unit.
static tv_status count_calls(const char *file, tv_comm *comm, int *a_unit)
{
    tv_config config = {0};
    tv_trainer trainer = {0};
    tv_step_report report;
    const int many = 1 << 20;
    tv_status st = open_trainer(&trainer, &config, file, comm);
    calls_left = many;
    if (st == TV_OK)
        st = tv_trainer_step(&trainer, 0, &report);
    *a_unit = (many - calls_left) / (6 / tv_comm_size(comm));
    tv_trainer_close(&trainer);
    tv_config_free(&config);
    return st;
}

// Calls of the op on the last rank until the middle of the failure's unit.
static tv_status find_middle(const failure *f, tv_comm *comm, int *calls)
{
    int a_unit = 0;
    TV_TRY(count_calls(f->config, comm, &a_unit));
    CHECK(a_unit > 2);
    *calls = (f->unit - (6 - 6 / tv_comm_size(comm))) * a_unit + a_unit / 2;
    return TV_OK;
}

static tv_status try_failure(tv_comm *comm, const failure *f)
{
    tv_config config = {0};
    tv_trainer trainer = {0};
    tv_step_report report;
    tv_hash128 expected;
    int calls = 0;
    TV_TRY(find_middle(f, comm, &calls));
    calls_left = -1;
    tv_status st = open_trainer(&trainer, &config, f->config, comm);
    if (st == TV_OK)
        st = tv_trainer_step(&trainer, 0, &report);
    if (st == TV_OK)
        st = tv_trainer_digest(&trainer, &expected);
    tv_trainer_close(&trainer);
    tv_config_free(&config);
    if (st == TV_OK)
        st = open_trainer(&trainer, &config, f->config, comm);
    if (st == TV_OK)
        st = fail_once(&trainer, calls, f, expected);
    tv_trainer_close(&trainer);
    tv_config_free(&config);
    return st;
}

static tv_status try_all(tv_comm *comm)
{
    static const failure stops = {DENSE, 5, TV_BACKEND, "a kernel that would not start"};
    static const failure faults[] = {
        {DENSE, 5, TV_NUMERIC, "unit 5: NaN or Inf"},   {DENSE, 4, TV_NUMERIC, "unit 4: NaN or Inf"},
        {EXPERTS, 5, TV_NUMERIC, "unit 5: NaN or Inf"}, {EXPERTS, 4, TV_NUMERIC, "unit 4: NaN or Inf"},
        {TABLES, 5, TV_NUMERIC, "unit 5: NaN or Inf"},  {TABLES, 4, TV_NUMERIC, "unit 4: NaN or Inf"}};
    faulty = *sound;
    faulty.norm_backward = norm_backward_fails;
    TV_TRY(try_failure(comm, &stops));
    faulty = *sound;
    faulty.quantize_channels = quantize_channels_faults;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        TV_TRY(try_failure(comm, &faults[i]));
    return TV_OK;
}

// The last rank's op goes wrong in the middle of its last unit. Returns what the step returned; longest: seconds that a rank
// waits for the GPUs of others, 0: as long as ever.
static tv_status step_once(tv_comm *comm, const char *file, double longest)
{
    const failure f = {file, 5, TV_OK, ""};
    tv_config config = {0};
    tv_trainer trainer = {0};
    tv_step_report report;
    int calls = 0;
    TV_TRY(find_middle(&f, comm, &calls));
    calls_left = tv_comm_rank(comm) == tv_comm_size(comm) - 1 ? calls : -1;
    tv_status st = open_trainer(&trainer, &config, file, comm);
    if (longest > 0)
        comm->gpu_seconds = longest;
    if (st == TV_OK)
        st = tv_trainer_step(&trainer, 0, &report);
    tv_trainer_close(&trainer);
    tv_config_free(&config);
    return st;
}

static tv_status run_mode(tv_comm *comm, const char *mode)
{
    faulty = *sound;
    if (strcmp(mode, "hang") == 0) {
        faulty.norm_backward = norm_backward_hangs;
        return step_once(comm, DENSE, 3);
    }
    if (strcmp(mode, "lost") == 0) {
        faulty.norm_backward = norm_backward_fails;
        return step_once(comm, EXPERTS, 0);
    }
    return try_all(comm);
}

static tv_status run(tv_comm *comm, const char *mode, int *usable)
{
    tv_status st = tv_backend_find(strcmp(mode, "hang") == 0   ? "cuda"
                                   : strcmp(mode, "lost") == 0 ? "auto"
                                                               : mode,
                                   &sound);
    if (st == TV_OK)
        st = sound->open(tv_comm_local_rank(comm), tv_comm_local_size(comm), 1);
    if (tv_comm_agree(comm, st) != TV_OK || tv_rank_devices_check(comm, sound) != TV_OK) {
        printf("skipped: %s\n", tv_status_message());
        *usable = 0;
        return TV_OK;
    }
    st = run_mode(comm, mode);
    sound->close();
    return st;
}

int main(int argc, char **argv)
{
    tv_comm *comm = NULL;
    int usable = 1;
    tv_status st = tv_comm_open(&argc, &argv, &comm);
    if (st == TV_OK) {
        tv_log_init(tv_comm_rank(comm), tv_comm_size(comm), TV_LOG_INFO);
        st = tv_comm_agree(comm, run(comm, argc > 1 ? argv[1] : "auto", &usable));
    }
    if (st != TV_OK)
        tv_log_error("%s: %s", tv_status_place(), tv_status_message());
    tv_comm_close(comm);
    return st != TV_OK ? tv_status_exit_code(st) : usable ? 0 : 77;
}
