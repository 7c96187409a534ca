#!/usr/bin/env bash
# A job of ser_jax on a Cloud TPU, from here: cloud/README.md says what it needs and what it costs.
#
#   cloud/tpu.sh upload FOLDER                   recordings into the bucket: FOLDER/emodb, FOLDER/ravdess, …
#   cloud/tpu.sh job SLICE [FLAG…]               all of what follows, until the run is complete
#   cloud/tpu.sh create SLICE                    asks for the TPU and waits for it
#   cloud/tpu.sh install                         copies the clone to every worker, installs, mounts, prepares corpora
#   cloud/tpu.sh run [FLAG…]                     python -m ser_jax.main FLAG… on every worker
#   cloud/tpu.sh collect                         copies the run from the bucket to runs/$NAME
#   cloud/tpu.sh delete                          gives the TPU back
#
# SLICE is a file of this folder: v5e-1, v5e-8, v5e-8-spot, v5e-16-spot. In the environment: ZONE and BUCKET; NAME of the
# run and of the TPU (ser-jax); CORPORA to prepare (demo_speech); KEEP=1 not to delete the TPU at the end of a job.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
name=${NAME:-ser-jax}
corpora=${CORPORA-demo_speech}
poll=${POLL:-30}   # seconds between two looks at the queue
tries=${TRIES:-3}  # starts in a row that fail on a TPU which is there

fail() { echo "error: $*" >&2; exit 1; }
say() { echo "$(date +%T)  $*" >&2; }
resources() { local verb=$1; shift; gcloud compute tpus queued-resources "$verb" "$name" --zone="$ZONE" "$@"; }

# The state of the request, or NONE where there is none. Asks again before it gives up: a TPU hangs on the answer.
state() {
  local found try
  for try in 1 2 3 4 5; do
    if found=$(resources describe --format='value(state.state)' 2>&1); then
      echo "$found"
      return
    elif [[ $found == *NOT_FOUND* ]]; then
      echo NONE
      return
    fi
    say "no answer ($try of 5): $found"
    sleep "$poll"
  done
  fail "$found"
}

# Runs a command line of words on workers: on_workers all|0 WORD…
on_workers() {
  local worker=$1
  shift
  gcloud compute tpus tpu-vm ssh "$name" --zone="$ZONE" --worker="$worker" --command="$(printf '%q ' "$@")"
}

request() {
  local accelerator runtime spot='' slice=$here/slices/$1.sh
  [[ -f $slice ]] || fail "no slice $1: $(cd "$here/slices" && echo *.sh)"
  # shellcheck source=cloud/slices/v5e-8-spot.sh
  source "$slice"
  say "asking for $name: $accelerator${spot:+, spot}"
  resources create --node-id="$name" --accelerator-type="$accelerator" --runtime-version="$runtime" \
    --scopes=cloud-platform ${spot:+--spot}
}

# Waits for a TPU; fails when the request has come to nothing.
wait_for_it() {
  local now
  while now=$(state); [[ $now != ACTIVE ]]; do
    case $now in
      NONE | FAILED | SUSPENDING | SUSPENDED) say "$name: $now"; return 1 ;;
    esac
    sleep "$poll"
  done
  say "$name: ACTIVE"
}

install() {
  local clone
  clone=$(mktemp -d)
  trap 'rm -rf "$clone"; trap - RETURN' RETURN
  git -C "$here/.." bundle create -q "$clone/ser_jax.bundle" HEAD || return 1  # with the commit, for the result card
  gcloud compute tpus tpu-vm scp "$clone/ser_jax.bundle" "$name:" --zone="$ZONE" --worker=all || return 1
  # On a new TPU the clone's own script does not exist yet; on an old one a run may have outlived its connection.
  gcloud compute tpus tpu-vm ssh "$name" --zone="$ZONE" --worker=all \
    --command='if [ -e ser_jax ]; then bash ser_jax/cloud/worker.sh stop; fi; rm -rf ser_jax && git -c advice.detachedHead=false clone -q ser_jax.bundle ser_jax' || return 1
  on_workers all bash ser_jax/cloud/worker.sh install "$BUCKET" || return 1
  for corpus in $corpora; do
    on_workers 0 bash ser_jax/cloud/worker.sh prepare "$corpus" || return 1
    on_workers all bash ser_jax/cloud/worker.sh fetch "$corpus" || return 1
  done
}

run() {
  on_workers all bash ser_jax/cloud/worker.sh run "$name" "$@"
}

collect() {
  gcloud storage rsync --recursive "gs://$BUCKET/runs/$name" "runs/$name"
  say "everything about this run: runs/$name"
}

delete() {
  say "deleting $name"
  resources delete --force --quiet
}

# A preempted TPU is asked for again, and the same command resumes from its last checkpoint.
job() {
  local slice=$1 failures=0 now
  shift
  [[ -f $here/slices/$slice.sh ]] || fail "no slice $slice: $(cd "$here/slices" && echo *.sh)"
  trap leave EXIT
  until ((failures == tries)); do
    now=$(state)
    case $now in
      NONE) request "$slice" ;;
      FAILED | SUSPENDING | SUSPENDED) say "$name: $now"; delete ;;
      ACTIVE)
        if install && run "$@"; then
          collect
          return
        fi
        sleep "$poll"  # until the state tells whether it was preempted
        if [[ $(state) == ACTIVE ]]; then
          failures=$((failures + 1))
          say "failed on a TPU that is there, $failures of $tries"
        fi
        ;;
      *) sleep "$poll" ;;
    esac
  done
  fail "gave up; what there is lies in gs://$BUCKET/runs/$name"
}

leave() {
  if [[ ${KEEP:-} ]]; then
    say "$name is still there and costs: cloud/tpu.sh delete"
  elif [[ $(state) != NONE ]]; then
    delete
  fi
}

command=${1:-}
[[ $command ]] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2; }
shift
[[ ${BUCKET:-} ]] || fail 'BUCKET is not set: the name of a bucket, without gs://'
[[ $BUCKET != gs://* ]] || fail "BUCKET=$BUCKET: without gs://"
[[ $command == @(upload|collect) || ${ZONE:-} ]] || fail 'ZONE is not set, e.g. us-central1-a'
case $command in
  upload) gcloud storage rsync --recursive "${1:?FOLDER}" "gs://$BUCKET/corpora" ;;
  create) request "${1:?SLICE}"; wait_for_it ;;
  job) : "${1:?SLICE}"; job "$@" ;;
  install | run | collect | delete) "$command" "$@" ;;
  *) fail "no command $command: upload job create install run collect delete" ;;
esac
