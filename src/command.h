// The commands of the program. Each gets what follows its name, the communicator of all ranks, and returns a status.
#ifndef TV_COMMAND_H
#define TV_COMMAND_H

#include "base/config.h"
#include "base/status.h"
#include "comm/comm.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "train/places.h"

typedef struct tv_command {
    const char *name;
    const char *help; // one line
    int collective;   // 1: may be started on many ranks; 0: one process
    tv_status (*run)(tv_comm *comm, int argc, char **argv);
} tv_command;

tv_status tv_cmd_train(tv_comm *comm, int argc, char **argv);
tv_status tv_cmd_eval(tv_comm *comm, int argc, char **argv);
tv_status tv_cmd_generate(tv_comm *comm, int argc, char **argv);
tv_status tv_cmd_inspect(tv_comm *comm, int argc, char **argv);
tv_status tv_cmd_digest(tv_comm *comm, int argc, char **argv);
tv_status tv_cmd_verify(tv_comm *comm, int argc, char **argv);
tv_status tv_cmd_export(tv_comm *comm, int argc, char **argv);
tv_status tv_cmd_audit(tv_comm *comm, int argc, char **argv);
tv_status tv_cmd_bench(tv_comm *comm, int argc, char **argv);
tv_status tv_cmd_report(tv_comm *comm, int argc, char **argv);

// Local. --config and --set: defaults, then the file, then the assignments in order, then the rules between keys.
tv_status tv_command_config(const char *path, const char *const *sets, int64_t set_count, tv_config *config);
// Collective. Find the backend by name and bring it up for this rank; the caller closes it.
tv_status tv_command_backend(const char *name, tv_comm *comm, int threads, const tv_backend **backend);

// A model loaded from a checkpoint, T and E only.
typedef struct tv_loaded {
    tv_config config;
    tv_model model;
    const tv_backend *backend;
    tv_places places;
    int64_t step;
} tv_loaded;
// Collective. Verify (rank 0), read the config from the manifest, plan for `windows` windows (0: a unit's), read T and E.
// Experts are split over as many ranks as can share them, whatever the run did.
tv_status tv_command_load(const char *dir, tv_comm *comm, int64_t windows, tv_loaded *out);
// Collective.
void tv_command_unload(tv_loaded *loaded);

// Local. The audit's tables: weights by part, bytes by kind and rank, activations, checkpoint size.
tv_status tv_audit_print(const tv_config *config, int ranks, int json);

#endif
