# shellcheck shell=bash disable=SC2034,SC2154
# Sourced behind tests/cli/common.sh: a Slurm of one node in the test's folder, with a munge of its own. Nothing of it outlives the test.
cluster=$work/cluster
daemons=()

# The real ones, on ports that nobody listens on.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# Two character devices stand for GPUs, so that the scripts' bindings are tried as they are.
write_cluster() {
    local user host
    user=$(id -un)
    host=$(hostname -s)
    mkdir -p "$cluster/state" "$cluster/spool"
    head -c 1024 /dev/urandom >"$cluster/munge.key"
    chmod 600 "$cluster/munge.key"
    cat >"$cluster/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$cluster/munge.socket,cred_expire=5
CredType=cred/munge
MailProg=$(command -v true)
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=1,sched_interval=2
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/slurmd.pid
SlurmctldLogFile=$cluster/slurmctld.log
SlurmdLogFile=$cluster/slurmd.log
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=node NodeHostname=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=500 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=node Default=YES MaxTime=INFINITE State=UP
CONF
    printf 'NodeName=node Name=gpu File=/dev/null\nNodeName=node Name=gpu File=/dev/zero\n' >"$cluster/gres.conf"
    echo "CgroupPlugin=cgroup/v1" >"$cluster/cgroup.conf"
    export SLURM_CONF=$cluster/slurm.conf
}

start_daemon() {
    local name=$1
    shift
    "$@" >"$cluster/$name.out" 2>&1 &
    daemons+=("$!")
}

node_is_idle() {
    [ "$(sinfo -h -o %t)" = idle ]
}

# Every tool that the scripts need; its absence, or a cluster that does not come up, is a reason to skip.
start_cluster() {
    local tool
    for tool in munged slurmctld slurmd sbatch srun scontrol sinfo scancel; do
        command -v "$tool" >/dev/null || skip "$tool is not installed (packages munge, slurmctld, slurmd, slurm-client)"
    done
    write_cluster
    start_daemon munged munged --foreground --force --socket="$cluster/munge.socket" --key-file="$cluster/munge.key" \
        --pid-file="$cluster/munged.pid" --log-file="$cluster/munged.log" --seed-file="$cluster/munge.seed"
    wait_for 10 test -S "$cluster/munge.socket" || skip "munged does not start: $(tail -n 1 "$cluster/munged.out")"
    start_daemon slurmctld slurmctld -D -f "$SLURM_CONF" -c
    start_daemon slurmd slurmd -D -f "$SLURM_CONF" -N node -c
    wait_for 30 node_is_idle || skip "no Slurm here: $(tail -n 1 "$cluster/slurmctld.log"); $(tail -n 1 "$cluster/slurmd.log")"
    srun --mpi=list 2>&1 | grep -q pmix || skip "this Slurm has no PMIx plugin"
}

stop_cluster() {
    [ "${#daemons[@]}" -gt 0 ] || return 0
    timeout 10 scancel -f --signal=KILL -u "$(id -un)" 2>/dev/null || true
    timeout 10 scancel -u "$(id -un)" 2>/dev/null || true
    wait_for 10 no_steps || true
    kill "${daemons[@]}" 2>/dev/null || true
    wait "${daemons[@]}" 2>/dev/null || true
}

no_steps() {
    [ -z "$(timeout 5 squeue -h)" ]
}
trap 'stop_cluster; clean_up' EXIT

# submit SCRIPT OPTION...: the job's number goes to `job`.
submit() {
    local script=$1
    shift
    job=$(sbatch --parsable --ntasks-per-node=2 --cpus-per-task=1 "$@" "$root/slurm/$script") || fail "sbatch $script"
}

job_field() {
    scontrol show job "$job" | sed -nE "s/.*\\b$1=([^ ]+).*/\\1/p" | head -n 1
}

job_is_over() {
    case $(job_field JobState) in
        COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) return 0 ;;
        *) return 1 ;;
    esac
}

# join_job SECONDS: waits for the end; the log goes to `out`.
join_job() {
    if ! wait_for "$1" job_is_over; then
        out=$(scontrol show job "$job"; cat ./*-"$job".log "$cluster/slurmctld.log")
        fail "job $job is not over after $1 s"
    fi
    out=$(cat ./*-"$job".log)
}
