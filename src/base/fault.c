#include "base/fault.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/nearest.h"

#define FAULTS_MAX 16
#define TEXT_MAX 1024

typedef enum fault_action { ACT_NONE, ACT_ERRNO, ACT_KILL, ACT_STOP, ACT_DELAY, ACT_FLIP, ACT_NAN } fault_action;

typedef struct planned_fault {
    tv_fault_point point;
    fault_action action;
    int error;      // ACT_ERRNO
    double seconds; // ACT_DELAY
    long hit;       // 0: every time
    int here;       // this rank is meant
    atomic_long seen;
} planned_fault;

int tv_fault_armed;
static planned_fault planned[FAULTS_MAX];
static int planned_count;

static const char *const point_names[] = {
#define POINT_NAME(id, name, actions, place) name,
    TV_FAULT_LIST(POINT_NAME)
#undef POINT_NAME
};
static const int point_actions[] = {
#define POINT_ACTIONS(id, name, actions, place) actions,
    TV_FAULT_LIST(POINT_ACTIONS)
#undef POINT_ACTIONS
};

static const struct {
    const char *name;
    int value;
} error_names[] = {
    {"ENOSPC", ENOSPC}, {"EIO", EIO},       {"EDQUOT", EDQUOT}, {"EACCES", EACCES}, {"EROFS", EROFS},
    {"ENOENT", ENOENT}, {"EMFILE", EMFILE}, {"ENOMEM", ENOMEM}, {"EINTR", EINTR},   {"EOPNOTSUPP", EOPNOTSUPP}};

const char *tv_fault_name(tv_fault_point point) { return point_names[point]; }

static tv_status find_point(const char *name, planned_fault *fault)
{
    for (int i = 0; i < TV_FAULT_POINT_COUNT; i++)
        if (strcmp(name, point_names[i]) == 0) {
            fault->point = (tv_fault_point)i;
            return TV_OK;
        }
    const char *nearest = tv_nearest(name, (const char **)point_names, TV_FAULT_POINT_COUNT);
    return TV_FAIL(TV_USAGE, "TV_FAULT: no fail point is called '%s'%s%s%s; docs/operations.md lists them", name,
                   nearest ? " (did you mean '" : "", nearest ? nearest : "", nearest ? "'?)" : "");
}

static tv_status set_error(const char *name, planned_fault *fault)
{
    for (size_t i = 0; i < sizeof error_names / sizeof *error_names; i++)
        if (strcmp(name, error_names[i].name) == 0) {
            fault->error = error_names[i].value;
            fault->action = ACT_ERRNO;
            return TV_OK;
        }
    return TV_FAIL(TV_USAGE,
                   "TV_FAULT: no error is called '%s'; one of ENOSPC, EIO, EDQUOT, EACCES, EROFS, ENOENT, "
                   "EMFILE, ENOMEM, EINTR, EOPNOTSUPP",
                   name);
}

// A whole non-negative number, -1 for anything else.
static long read_number(const char *text)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    return *text == '\0' || *end != '\0' || errno != 0 || value < 0 ? -1 : value;
}

static tv_status set_delay(const char *text, planned_fault *fault)
{
    char *end;
    fault->seconds = strtod(text, &end);
    if (*text == '\0' || *end != '\0' || !(fault->seconds >= 0 && fault->seconds <= 1e6))
        return TV_FAIL(TV_USAGE, "TV_FAULT: delay=%s is no number of seconds", text);
    fault->action = ACT_DELAY;
    return TV_OK;
}

static tv_status set_field(const char *field, int rank, planned_fault *fault)
{
    static const struct {
        const char *name;
        fault_action action;
    } plain[] = {{"kill", ACT_KILL}, {"stop", ACT_STOP}, {"flip-bit", ACT_FLIP}, {"nan", ACT_NAN}};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(field, plain[i].name) == 0) {
            fault->action = plain[i].action;
            return TV_OK;
        }
    if (strncmp(field, "errno=", 6) == 0)
        return set_error(field + 6, fault);
    if (strncmp(field, "delay=", 6) == 0)
        return set_delay(field + 6, fault);
    if (strncmp(field, "rank=", 5) == 0 && read_number(field + 5) >= 0) {
        fault->here = read_number(field + 5) == rank;
        return TV_OK;
    }
    if (strcmp(field, "hit=*") == 0) {
        fault->hit = 0;
        return TV_OK;
    }
    if (strncmp(field, "hit=", 4) == 0 && read_number(field + 4) > 0) {
        fault->hit = read_number(field + 4);
        return TV_OK;
    }
    return TV_FAIL(TV_USAGE,
                   "TV_FAULT: '%s' is none of rank=R, hit=N, hit=*, errno=NAME, kill, stop, delay=SECONDS, "
                   "flip-bit, nan",
                   field);
}

static tv_status check_action(const planned_fault *fault)
{
    static const int needs[] = {[ACT_ERRNO] = TV_FAULT_ERRNO, [ACT_FLIP] = TV_FAULT_FLIP, [ACT_NAN] = TV_FAULT_NAN};
    const char *name = point_names[fault->point];
    if (fault->action == ACT_NONE)
        return TV_FAIL(TV_USAGE,
                       "TV_FAULT: %s has no action; give errno=NAME, kill, stop, delay=SECONDS, flip-bit or "
                       "nan",
                       name);
    int need = fault->action < (int)(sizeof needs / sizeof *needs) ? needs[fault->action] : 0;
    if ((point_actions[fault->point] & need) != need)
        return TV_FAIL(TV_USAGE, "TV_FAULT: fail point %s does not take this action; docs/operations.md lists which do",
                       name);
    return TV_OK;
}

static tv_status read_fault(char *text, int rank)
{
    char *rest = NULL;
    if (planned_count == FAULTS_MAX)
        return TV_FAIL(TV_USAGE, "TV_FAULT: more than %d faults", FAULTS_MAX);
    planned_fault *fault = &planned[planned_count];
    *fault = (planned_fault){.hit = 1, .here = 1};
    char *field = strtok_r(text, ":", &rest);
    TV_TRY(find_point(field ? field : "", fault));
    while ((field = strtok_r(NULL, ":", &rest)) != NULL)
        TV_TRY(set_field(field, rank, fault));
    TV_TRY(check_action(fault));
    planned_count += fault->here;
    return TV_OK;
}

tv_status tv_fault_open(int rank)
{
    char text[TEXT_MAX], *rest = NULL;
    const char *given = getenv("TV_FAULT");
    planned_count = tv_fault_armed = 0;
    if (given == NULL || *given == '\0')
        return TV_OK;
    if (strlen(given) >= sizeof text)
        return TV_FAIL(TV_USAGE, "TV_FAULT is longer than %d bytes", TEXT_MAX - 1);
    memcpy(text, given, strlen(given) + 1);
    for (char *one = strtok_r(text, ",", &rest); one != NULL; one = strtok_r(NULL, ",", &rest))
        TV_TRY(read_fault(one, rank));
    tv_fault_armed = planned_count > 0;
    return TV_OK;
}

static void sleep_for(double seconds)
{
    struct timespec left = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

static void act(const planned_fault *fault, tv_fault *out)
{
    switch (fault->action) {
    case ACT_KILL: raise(SIGKILL); break;
    case ACT_STOP: raise(SIGSTOP); break;
    case ACT_DELAY: sleep_for(fault->seconds); break;
    case ACT_ERRNO: out->error = fault->error; break;
    case ACT_FLIP: out->spoil = TV_FAULT_FLIP; break;
    case ACT_NAN: out->spoil = TV_FAULT_NAN; break;
    default: break;
    }
}

tv_fault tv_fault_take(tv_fault_point point)
{
    tv_fault out = {0, 0};
    for (int i = 0; i < planned_count; i++) {
        planned_fault *fault = &planned[i];
        if (fault->point != point)
            continue;
        long seen = atomic_fetch_add(&fault->seen, 1) + 1;
        if (fault->hit == 0 || fault->hit == seen)
            act(fault, &out);
    }
    return out;
}

int tv_fault_errno(tv_fault_point point)
{
    int error = tv_fault_at(point).error;
    if (error != 0)
        errno = error;
    return error;
}

tv_status tv_fault_status(tv_fault_point point, tv_status code)
{
    int error = tv_fault_at(point).error;
    return error == 0 ? TV_OK : TV_FAIL(code, "fail point %s: %s", point_names[point], strerror(error));
}

void tv_fault_spoil(tv_fault_point point, void *data, size_t bytes) { tv_fault_apply(tv_fault_at(point), data, bytes); }

void tv_fault_apply(tv_fault fault, void *data, size_t bytes)
{
    int spoil = fault.spoil;
    unsigned char *at = data;
    static const uint32_t nan_bits = 0x7FC00000u;
    if (spoil == TV_FAULT_FLIP && bytes > 0)
        at[bytes / 2] ^= 1;
    if (spoil == TV_FAULT_NAN && bytes >= sizeof nan_bits)
        memcpy(at + bytes / 8 * 4, &nan_bits, sizeof nan_bits);
}
