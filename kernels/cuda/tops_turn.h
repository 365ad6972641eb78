// Two arrays of maxima that calls take in turns: a call finds zeros in its own and has to zero the last call's.
#ifndef TV_KERNELS_TOPS_TURN_H
#define TV_KERNELS_TOPS_TURN_H

#include <stdint.h>

typedef struct tv_channel_tops {
    uint32_t *top;       // zeros; this call's maxima, as bits
    uint32_t *spent;     // the last call's, to be zeroed
    int64_t spent_count; // how many
} tv_channel_tops;

typedef struct tv_tops_turns {
    int64_t used[2]; // maxima of the last call with either array that are not zeroed yet
    int turn;
} tv_tops_turns;

// The next call's, `count` of them. arrays: [2, room], zeros at first.
static inline tv_channel_tops tv_tops_take(tv_tops_turns *turns, uint32_t *arrays, int64_t room, int64_t count)
{
    int mine = !turns->turn, other = !mine;
    tv_channel_tops tops = {arrays + mine * room, arrays + other * room, turns->used[other]};
    turns->turn = mine;
    turns->used[mine] = count;
    turns->used[other] = 0;
    return tops;
}

#endif
