#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh share: slurm_run.sh TOOL PARTITION JOB_NAME [arguments of the tool]
set -euo pipefail
tool="$1" partition="$2" job="$3"
shift 3
fail() {
    echo "error: $1" >&2
    exit 1
}
check_number() {
    [[ "$2" =~ ^[1-9][0-9]{0,5}$ ]] || fail "$1='$2': give a number of $3, at least 1"
}
gpus="${GPUS:-8}" per_node="${GPUS_PER_NODE:-8}" cpus="${CPUS_PER_TASK:-5}" requeue="${REQUEUE:-0}"
check_number GPUS "$gpus" 'processes, one for each GPU'
check_number GPUS_PER_NODE "$per_node" 'processes on a node'
check_number CPUS_PER_TASK "$cpus" 'cores for a process'
[[ "$requeue" =~ ^[01]$ ]] || fail "REQUEUE='$requeue': give 1 to queue a job again that was stopped, or 0"
if [ "$gpus" -lt "$per_node" ]; then per_node="$gpus"; fi
gres="${GRES:-gpu:$per_node}" options=()
if [ "$gres" != none ]; then options+=("--gres=$gres"); fi
# Words, with quotes around those that have spaces; nothing is expanded.
if ! words="$(printf '%s' "${SRUN_ARGS:-}" | xargs -r printf '%s\n' 2>/dev/null)"; then
    fail "SRUN_ARGS='$SRUN_ARGS': a quote is not closed"
fi
if [ -n "$words" ]; then
    mapfile -t words <<<"$words"
    [[ "${words[0]}" == -* ]] || fail "SRUN_ARGS='$SRUN_ARGS': give options of srun, which begin with -"
    options+=("${words[@]}")
fi
if ! command -v srun >/dev/null; then
    fail "srun is not on PATH: run this on a machine of a Slurm cluster, or use tools/dist_${tool%.py}.sh"
fi
source "$(dirname "${BASH_SOURCE[0]}")/python.sh"

# The first process notes in it how the run ended: the statuses of a stop and of a crash are the same.
MMMETA_END_FILE="$(mktemp "$PWD/.slurm_end.XXXXXX")" || fail "cannot write in '$PWD': start this elsewhere"
export MMMETA_END_FILE
trap 'rm -f "$MMMETA_END_FILE"' EXIT

# srun passes SIGUSR1 on to the processes, which write a checkpoint. At SIGTERM it would kill them: it has a
# session of its own, so that a signal for the script and its children does not reach it.
signals=0
stop() {
    signals=$((signals + 1))
    if [ "$1" = INT ] && [ "$signals" -gt 1 ]; then kill -TERM "$srun"; else kill -USR1 "$srun"; fi 2>/dev/null || true
}
setsid srun --partition="$partition" --job-name="$job" --ntasks="$gpus" --ntasks-per-node="$per_node" \
    --cpus-per-task="$cpus" --kill-on-bad-exit=1 ${options[@]+"${options[@]}"} \
    "$python" -u "$root/tools/$tool" "$@" --launcher=slurm </dev/null &
srun=$!
for signal in INT TERM HUP USR1; do trap "stop $signal" "$signal"; done
while :; do
    before=$signals status=0
    wait "$srun" || status=$?
    if [ "$signals" = "$before" ]; then break; fi # else it is the signal that ended the waiting
done

end="$(cat "$MMMETA_END_FILE")"
rm -f "$MMMETA_END_FILE" # before the job is queued again, which kills this
case "$end" in
stopped*)
    if [ "$requeue" = 1 ] && [ -n "${SLURM_JOB_ID:-}" ]; then
        # A job that was cancelled, and is completing then, would come back.
        case "$(scontrol show job --oneliner "$SLURM_JOB_ID" 2>/dev/null || true)" in
        *JobState=COMPLETING*Reason=TimeLimit*) scontrol requeue "$SLURM_JOB_ID" ;;
        *JobState=COMPLETING* | *JobState=CANCELLED*) echo 'not queued again: it was cancelled' >&2 ;;
        *) scontrol requeue "$SLURM_JOB_ID" ;;
        esac
    fi
    ;;
finished*) ;;
*)
    if [ "$status" = 0 ]; then
        echo "error: srun reports no error, but the run has not finished, and none of it noted that in '$PWD': a" \
            "node may have failed, or this folder is not on all nodes" >&2
        status=1
    elif [ "$status" -gt 128 ]; then # of those that had to be ended
        echo "error: processes were ended (status $status of srun), without a checkpoint of what they had done: the" \
            "reason is above" >&2
        status=1
    fi
    if [ "$requeue" = 1 ]; then echo 'not queued again: it was not stopped by a signal with a checkpoint' >&2; fi
    ;;
esac
exit "$status"
