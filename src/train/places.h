// The communicators of a run: all ranks, and with experts the ranks that share them.
//
// With P = expert_ranks, groups of P consecutive ranks hold every expert once, and the rank's place in its group says which
// of them it holds. The R / P ranks of one place are replicas.
#ifndef TV_TRAIN_PLACES_H
#define TV_TRAIN_PLACES_H

#include "base/config.h"
#include "base/status.h"
#include "comm/comm.h"

typedef struct tv_places {
    tv_comm *comm;    // all ranks; not owned
    tv_comm *experts; // this rank's group, P ranks; NULL when P = 1
    tv_comm *
        replicas; // this rank's place, R / P ranks; NULL when P = 1, whose experts are as other tensors, and when P = R
    int expert_ranks; // P
} tv_places;

// Collective, after tv_comm_device_open. expert_ranks is P, of tv_config_expert_ranks. Call tv_places_close also after a
// failure.
tv_status tv_places_open(tv_places *places, tv_comm *comm, int expert_ranks);
// Collective. Before the communicator of all ranks is closed.
void tv_places_close(tv_places *places);

#endif
