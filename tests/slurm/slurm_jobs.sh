#!/usr/bin/env bash
# The scripts of slurm/ on a real Slurm: SIGUSR2 before the limit, exit 75, queued again, the same bits as the run that nobody disturbed.
# shellcheck source=tests/cli/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cli/common.sh"
# shellcheck source=tests/slurm/cluster.sh
. "$root/tests/slurm/cluster.sh"
make_small
expect 0 trivote train --config c.yaml --run whole --set run.backend=cpu
want=$(final_field digest)
start_cluster

# The first start is so slow that its time ends before it does.
cat >slow-at-first <<WRAP
#!/usr/bin/env bash
[ -n "\${SLURM_RESTART_COUNT:-}" ] || export TV_FAULT=step.start:hit=*:delay=20
exec "$program" "\$@"
WRAP
chmod +x slow-at-first
export TRIVOTE=$program TRIVOTE_CONFIG=c.yaml TRIVOTE_RUN=run TRIVOTE_OPTIONS="--set run.backend=cpu"

# Five minutes less 300 s: Slurm sends SIGUSR2 when it looks at its jobs next, within half a minute.
TRIVOTE=./slow-at-first submit single-node.sbatch --time=5
join_job 200
same "$(job_field JobState)" COMPLETED "state of the job"
same "$(job_field Restarts)" 1 "restarts"
same "$(job_field ExitCode)" 0:0 "exit code"
says 'backend cpu.*, 2 ranks'
says_once '^stopped on request'
says_once '== exit code 75'
says_once 'start 2,'
same "$(final_field digest)" "$want" "digest of a run in two parts"

# The cap: a run that is asked to stop once more ends with 75.
rm -rf run && mkdir run && touch run/stop
TRIVOTE_MAX_RESTARTS=0 submit single-node.sbatch
join_job 60
same "$(job_field JobState) $(job_field ExitCode)" "FAILED 75:0" "end of the job at its cap"
says 'restarts are enough'

# Several nodes, of which this cluster has one; then the evaluation of what it trained.
rm -rf run
submit multi-node.sbatch --nodes=1
join_job 60
same "$(job_field ExitCode)" 0:0 "exit code of multi-node.sbatch"
same "$(final_field digest)" "$want" "digest of multi-node.sbatch"
TRIVOTE_DATA=text.txt submit eval.sbatch
join_job 60
same "$(job_field ExitCode)" 0:0 "exit code of eval.sbatch"
says '^bpb=[0-9.]+'

# A rank that dies takes the job with it.
rm -rf run
TV_FAULT=step.guard:rank=1:hit=3:kill submit single-node.sbatch
join_job 60
same "$(job_field JobState)" FAILED "state of a job whose rank was killed"

# A job that is cancelled saves and is not queued again.
rm -rf run
TV_FAULT="step.start:hit=*:delay=0.5" submit single-node.sbatch
wait_for 60 grep -q '"step":2,' run/metrics.jsonl || fail "no second step"
scancel "$job"
join_job 60
same "$(job_field JobState)" CANCELLED "state of a cancelled job"
[ -n "$(newest run)" ] || fail "a cancelled job left no checkpoint"
expect 0 trivote verify --checkpoint "$(newest run)"

# Without PMIx each task would be a world of its own, or Open MPI ends while it starts: a word before that.
for kind in none pmi2; do
    rm -rf run
    expect 1 timeout 60 srun --mpi="$kind" -n 2 "$program" train --config c.yaml --run run --set run.backend=cpu
    says 'srun --mpi=pmix'
done
echo "Slurm $(sinfo --version | cut -d' ' -f2)"
