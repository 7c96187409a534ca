#!/usr/bin/env bash
# What tpu.sh does on the workers of a TPU; the clone lies in ~/ser_jax, the bucket is mounted on ~/bucket, or $MOUNT.
#
#   worker.sh install BUCKET     installs ser_jax into ~/venv, mounts the bucket
#   worker.sh prepare CORPUS     on one worker: prepares a corpus into the bucket, unless it is there
#   worker.sh fetch CORPUS       copies a prepared corpus to the local disk
#   worker.sh run NAME [FLAG…]   the run, in the bucket's folder runs/NAME
#   worker.sh stop               ends a run that is still going on
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$HOME/venv/bin/python
bucket=${MOUNT:-$HOME/bucket}  # the same on every worker, as its user is
records=$HOME/records
running=$HOME/ser_jax.pid

mount_bucket() {
  if ! command -v gcsfuse > /dev/null; then
    local release
    release=gcsfuse-$(lsb_release -c -s)
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/cloud.google.asc > /dev/null
    echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt $release main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null
    sudo apt-get -q update && sudo apt-get -q install -y gcsfuse
  fi
  mkdir -p "$bucket"
  # Nothing about files may be remembered: every worker must see at once what another has written or renamed.
  mountpoint -q "$bucket" ||
    gcsfuse --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$1" "$bucket"
  mkdir -p "$bucket/records" "$bucket/runs"
}

install() {
  # The TPU's own Python is older than 3.11.
  command -v uv > /dev/null || python3 -m pip install -q --user uv
  export PATH=$HOME/.local/bin:$PATH
  [[ -x $python ]] || uv venv -q --python=3.12 "$HOME/venv"
  uv pip install -q --python="$python" '.[tpu]'
  mount_bucket "$1"
}

prepare() {
  local corpus=$1 where=()
  local ready=$bucket/records/$corpus manual=$bucket/corpora/${corpus##*/}
  [[ ! -e $ready ]] || return 0
  [[ ! -d $manual ]] || where=(--manual_dir="$manual")
  # Builds rename, lock and read at random, which is for a local disk; the result is copied.
  "$python" -m tfds_builders.build "$corpus" --data_dir="$records" "${where[@]}"
  rm -rf "$ready.tmp" && mkdir -p "$(dirname "$ready")"
  cp -r "$records/$corpus" "$ready.tmp"
  mv "$ready.tmp" "$ready"
}

fetch() {
  [[ ! -e $records/$1 ]] || return 0
  mkdir -p "$(dirname "$records/$1")"
  rm -rf "$records/$1.tmp"
  cp -r "$bucket/records/$1" "$records/$1.tmp"
  mv "$records/$1.tmp" "$records/$1"
}

run() {
  local name=$1
  shift
  echo $$ > "$running"
  export SER_JAX_PROCESSES=auto
  exec "$python" -m ser_jax.main "$@" --workdir="$bucket/runs/$name" --config.data.data_dir="$records"
}

stop() {
  [[ -e $running ]] || return 0
  local pid second
  pid=$(< "$running")
  if grep -qs ser_jax.main "/proc/$pid/cmdline"; then
    kill -TERM "$pid"
    for ((second = 0; second < 15; second++)); do
      [[ -e /proc/$pid ]] || break
      sleep 1
    done
    kill -KILL "$pid" 2> /dev/null || true
  fi
  rm "$running"
}

case ${1:-} in
  install | prepare | fetch | run | stop) "$@" ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
