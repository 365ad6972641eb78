#include "train/places.h"

tv_status tv_places_open(tv_places *places, tv_comm *comm, int expert_ranks)
{
    int rank = tv_comm_rank(comm), ranks = tv_comm_size(comm);
    *places = (tv_places){.comm = comm, .expert_ranks = expert_ranks};
    if (expert_ranks == 1)
        return TV_OK;
    TV_TRY(tv_comm_split(comm, rank / expert_ranks, rank, &places->experts));
    if (expert_ranks == ranks)
        return TV_OK;
    return tv_comm_split(comm, rank % expert_ranks, rank, &places->replicas);
}

void tv_places_close(tv_places *places)
{
    tv_comm_close(places->replicas);
    tv_comm_close(places->experts);
    *places = (tv_places){0};
}
