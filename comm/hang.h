// The report of a hang: this rank's last collectives as JSON, and one message that names who waits where, and who not.
#ifndef TV_COMM_HANG_H
#define TV_COMM_HANG_H

#include "comm/comm.h"

// Collective. Reports go to `folder` as hang-rank-NNNNN.json (before this: only the message is printed), and the ranks of
// a host begin to see each other (comm/ring.h). The communicator is that of all ranks.
tv_status tv_hang_folder(tv_comm *comm, const char *folder);

typedef enum tv_hang_kind { TV_HANG_NOT, TV_HANG_COLLECTIVE, TV_HANG_PROGRESS } tv_hang_kind;

// Local. Writes this rank's report, waits a moment for those of the others, and prints the message: the lowest rank that
// waits in a collective and reports, or one without progress when none does. Returns after at most some seconds, later only when the disk hangs; SIGALRM ends the process then.
// From any thread; a second call waits for the first.
void tv_hang_report(tv_hang_kind kind, double waited);

#endif
