#include "comm/hang_rank.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// One line of JSON for a collective; "left_ago" is last, since it may be null. A report is read with the same text.
#define ENTRY_PRINT                                                                                                    \
    "{\"number\": %lld, \"sequence\": %lld, \"what\": \"%s\", \"purpose\": \"%s\", \"bytes\": %lld, \"child\": %lld, " \
    "\"entered_ago\": %.6f, \"left_ago\": "
#define ENTRY_SCAN                                                                                                     \
    "{\"number\": %lld, \"sequence\": %lld, \"what\": \"%63[^\"]\", \"purpose\": \"%31[^\"]\", \"bytes\": %lld, "      \
    "\"child\": %lld, \"entered_ago\": %lf, \"left_ago\": %lf"

static int path_of(const tv_hang_run *run, int rank, const char *end, char path[TV_HANG_PATH_BYTES])
{
    return run->folder[0] &&
           snprintf(path, TV_HANG_PATH_BYTES, "%s/hang-rank-%05d.json%s", run->folder, rank, end) < TV_HANG_PATH_BYTES;
}

static double ago(int64_t time, int64_t now) { return time == 0 ? -1.0 : 1e-9 * (double)(now - time); }

static void print_entry(FILE *out, const tv_ring_entry *e, int64_t now)
{
    fprintf(out, ENTRY_PRINT, (long long)e->number, (long long)e->sequence, tv_op_text((tv_op)e->op),
            tv_wire_text(e->wire), (long long)e->bytes, (long long)e->color, ago(e->entered, now));
    if (e->left == 0)
        fprintf(out, "null}");
    else
        fprintf(out, "%.6f}", ago(e->left, now));
}

static const char *kind_text(int64_t kind)
{
    static const char *const texts[] = {"", "collective", "progress"};
    return texts[kind];
}

static void print_report(FILE *out, const tv_hang_run *run, tv_hang_kind kind, double waited)
{
    tv_ring_entry entries[TV_RING_ENTRIES];
    tv_seat seat;
    char host[256] = "";
    int64_t now = tv_ring_now();
    int count = tv_ring_read(entries);
    tv_board_read(tv_board_rank(), &seat);
    gethostname(host, sizeof host - 1);
    fprintf(out, "{\n\"run\": \"%016llx\",\n\"rank\": %d,\n\"ranks\": %d,\n\"host\": \"%s\",\n\"pid\": %ld,\n",
            (unsigned long long)run->id, tv_board_rank(), tv_board_size(), host, (long)getpid());
    fprintf(out, "\"time\": %lld,\n\"hangs_in\": \"%s\",\n\"seconds\": %.3f,\n\"limit\": %.3f,\n",
            (long long)time(NULL), kind_text(kind), waited, tv_watch_limit());
    fprintf(out, "\"step\": %lld,\n\"phase\": \"%s\",\n\"phase_number\": %lld,\n\"phase_ago\": %.6f,\n",
            (long long)seat.step, tv_phase_text(seat.phase), (long long)seat.phase, ago(seat.marked, now));
    fprintf(out, "\"last\": ");
    print_entry(out, &seat.last, now);
    fprintf(out, ",\n\"collectives\": [");
    for (int i = 0; i < count; i++) {
        fprintf(out, i == 0 ? "\n" : ",\n");
        print_entry(out, &entries[i], now);
    }
    fprintf(out, "\n]\n}\n");
}

int tv_hang_rank_write(const tv_hang_run *run, tv_hang_kind kind, double waited)
{
    char path[TV_HANG_PATH_BYTES], fresh[TV_HANG_PATH_BYTES];
    if (!path_of(run, tv_board_rank(), "", path) || !path_of(run, tv_board_rank(), ".tmp", fresh))
        return 0;
    FILE *out = fopen(fresh, "we");
    if (out == NULL)
        return 0;
    print_report(out, run, kind, waited);
    int failed = ferror(out);
    failed |= fclose(out) != 0;
    return !failed && rename(fresh, path) == 0;
}

// The number of a text, 0 when there is none like it.
static int64_t number_of(const char *wanted, const char *(*text)(int64_t), int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (strcmp(text(i), wanted) == 0)
            return i;
    return 0;
}

static const char *op_text(int64_t op) { return tv_op_text((tv_op)op); }

static int scan_entry(const char *line, tv_hang_rank *out)
{
    long long number, sequence, bytes, color;
    char what[64], purpose[32];
    out->left = -1;
    int n = sscanf(line, ENTRY_SCAN, &number, &sequence, what, purpose, &bytes, &color, &out->entered, &out->left);
    if (n < 7)
        return 0;
    out->inside = n == 7;
    out->last = (tv_ring_entry){.number = number, .sequence = sequence, .bytes = bytes, .color = color};
    out->last.op = number_of(what, op_text, TV_OP_COUNT);
    out->last.wire = number_of(purpose, tv_wire_text, TV_WIRE_COUNT);
    return 1;
}

static void scan_report(FILE *in, const tv_hang_run *run, tv_hang_rank *out)
{
    char line[1024], kind[16] = "";
    unsigned long long id = 0;
    long long step = 0, phase = 0;
    while (fgets(line, sizeof line, in)) {
        sscanf(line, "\"run\": \"%llx\"", &id);
        sscanf(line, "\"hangs_in\": \"%15[^\"]\"", kind);
        sscanf(line, "\"step\": %lld", &step);
        sscanf(line, "\"phase_number\": %lld", &phase);
        sscanf(line, "\"phase_ago\": %lf", &out->marked);
        if (strncmp(line, "\"last\": ", 8) == 0)
            out->known = scan_entry(line + 8, out);
    }
    out->known = out->known && id == run->id;
    out->reported = out->known ? (int)number_of(kind, kind_text, TV_HANG_PROGRESS + 1) : TV_HANG_NOT;
    out->step = step;
    out->phase = phase;
}

static void from_seat(const tv_seat *seat, tv_hang_rank *out)
{
    int64_t now = tv_ring_now();
    out->known = 1;
    out->reported = (int)seat->reported;
    out->inside = seat->last.number > 0 && seat->last.left == 0;
    out->last = seat->last;
    out->entered = ago(seat->last.entered, now);
    out->left = ago(seat->last.left, now);
    out->marked = ago(seat->marked, now);
    out->beat = ago(seat->beat, now);
    out->step = seat->step;
    out->phase = seat->phase;
}

void tv_hang_rank_read(const tv_hang_run *run, int rank, tv_hang_rank *out)
{
    char path[TV_HANG_PATH_BYTES];
    tv_seat seat;
    *out = (tv_hang_rank){.beat = -1, .marked = -1};
    if (tv_board_read(rank, &seat)) {
        from_seat(&seat, out);
        return;
    }
    if (!path_of(run, rank, "", path))
        return;
    FILE *in = fopen(path, "re");
    if (in == NULL)
        return;
    scan_report(in, run, out);
    fclose(in);
}
