#include "comm/ring.h"

#include <string.h>
#include <time.h>

#define FIELDS (sizeof(tv_ring_entry) / sizeof(int64_t))

// Written by the thread that communicates, read by the watch.
static tv_ring_entry ring[TV_RING_ENTRIES];
static int64_t entered; // collectives so far

static const char *const op_texts[] = {
#define OP_TEXT(id, text, point) text,
    TV_OP_LIST(OP_TEXT)
#undef OP_TEXT
};
static const tv_fault_point op_faults[] = {
#define OP_FAULT(id, text, point) TV_FAULT_##point##_POINT,
    TV_OP_LIST(OP_FAULT)
#undef OP_FAULT
};
static const char *const wire_texts[TV_WIRE_COUNT] = {
    [TV_WIRE_VOTES] = "votes", [TV_WIRE_STATE] = "state",   [TV_WIRE_METRICS] = "metrics",
    [TV_WIRE_GUARD] = "guard", [TV_WIRE_TOKENS] = "tokens", [TV_WIRE_OTHER] = "other",
};

const char *tv_op_text(tv_op op) { return op_texts[(unsigned)op < TV_OP_COUNT ? op : TV_OP_NONE]; }

tv_fault_point tv_op_fault(tv_op op) { return op_faults[op]; }

const char *tv_wire_text(int64_t wire) { return wire >= 0 && wire < TV_WIRE_COUNT ? wire_texts[wire] : "other"; }

int64_t tv_ring_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// `left` goes last and is read first: who sees an entry open sees when it was entered.
static void store_entry(tv_ring_entry *to, const tv_ring_entry *from)
{
    int64_t *a = (int64_t *)to;
    const int64_t *b = (const int64_t *)from;
    for (size_t i = 0; i + 1 < FIELDS; i++)
        __atomic_store_n(&a[i], b[i], __ATOMIC_RELAXED);
    __atomic_store_n(&to->left, from->left, __ATOMIC_RELEASE);
}

static void load_entry(tv_ring_entry *to, const tv_ring_entry *from)
{
    int64_t *a = (int64_t *)to;
    const int64_t *b = (const int64_t *)from;
    to->left = __atomic_load_n(&from->left, __ATOMIC_ACQUIRE);
    for (size_t i = 0; i + 1 < FIELDS; i++)
        a[i] = __atomic_load_n(&b[i], __ATOMIC_RELAXED);
}

void tv_ring_enter(const tv_ring_entry *entry)
{
    tv_ring_entry e = *entry;
    e.number = entered + 1;
    e.entered = tv_ring_now();
    e.left = 0;
    store_entry(&ring[entered % TV_RING_ENTRIES], &e);
    store_entry(&tv_board_mine()->last, &e);
    __atomic_store_n(&entered, e.number, __ATOMIC_RELEASE);
}

void tv_ring_leave(void)
{
    tv_seat *seat = tv_board_mine();
    if (seat->last.left != 0 || entered == 0)
        return;
    int64_t now = tv_ring_now();
    __atomic_store_n(&ring[(entered - 1) % TV_RING_ENTRIES].left, now, __ATOMIC_RELAXED);
    __atomic_store_n(&seat->last.left, now, __ATOMIC_RELAXED);
}

int tv_ring_read(tv_ring_entry out[TV_RING_ENTRIES])
{
    int64_t last = __atomic_load_n(&entered, __ATOMIC_ACQUIRE);
    int64_t first = last > TV_RING_ENTRIES ? last - TV_RING_ENTRIES : 0;
    for (int64_t i = first; i < last; i++)
        load_entry(&out[i - first], &ring[i % TV_RING_ENTRIES]);
    return (int)(last - first);
}
