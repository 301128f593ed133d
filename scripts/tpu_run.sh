#!/usr/bin/env bash
# Trains on Cloud TPU: requests a queued resource, installs kdjax on all its workers, runs one train
# command there, starts it again after a preemption, and copies the report back. docs/tpu.md explains
# the commands; --dry-run prints them and runs none.
set -euo pipefail

usage() {
  cat <<'END'
scripts/tpu_run.sh --name=NAME --zone=ZONE --accelerator=TYPE --config=FILE --workdir=gs://... [FLAGS]
                   [-- --config.KEY=VALUE ...]

  --name=NAME          of the queued resource and of the TPU
  --zone=ZONE          such as us-west4-a
  --accelerator=TYPE   v5litepod-8, v5litepod-16, v6e-8, v6e-16, ...
  --config=FILE        an experiment of this checkout; what follows -- is passed to train, too
  --workdir=gs://...   a folder of a bucket, or a folder that all workers mount
  --version=VERSION    TPU software version; default by the accelerator
  --project=PROJECT    default: that of gcloud
  --spot               a spot TPU: cheaper, and preempted at any time
  --out=FOLDER         local folder for the report; default: the name
  --restarts=NUMBER    of the train command, at most; default 100
  --poll=SECONDS       between questions for the state of the resource; default 30
  --keep               do not delete the TPU at the end
  --dry-run            print the commands and run none

It sends the committed files of the checkout. Exit status: that of the train command (0 finished,
1 failed, 2 a mistake), 75 if it was preempted too often.
END
}

fail() {
  printf 'tpu_run.sh: %s\n' "$1" >&2
  exit "${2:-2}"
}

name='' zone='' accelerator='' version='' config='' workdir='' out=''
restarts=100 poll=30 keep='' dry_run=''
place=() spot=() overrides=()
while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --config=*) config=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --project=*) place+=("$1") ;;
    --spot) spot=("$1") ;;
    --out=*) out=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --poll=*) poll=${1#*=} ;;
    --keep) keep=yes ;;
    --dry-run) dry_run=yes ;;
    --help) usage && exit ;;
    --) shift && overrides=("$@") && break ;;
    *) fail "unknown argument $1; --help lists them" ;;
  esac
  shift
done
for flag in name zone accelerator config workdir; do
  [[ ${!flag} ]] || fail "--$flag is missing; --help lists the flags"
done
if [[ ! $version ]]; then
  case $accelerator in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    *) fail "--version is missing: the software version of $accelerator is not known here" ;;
  esac
fi
out=${out:-$name}
place+=("--zone=$zone")
archive=kdjax-$name.tar.gz

# Quotes a word for a shell, and only if it needs quotes.
quoted() {
  if [[ $1 =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
    printf '%s' "$1"
  else
    printf "'%s'" "${1//\'/\'\\\'\'}"
  fi
}

# Prints a command, and runs it unless --dry-run.
run() {
  local word line=''
  for word in "$@"; do line+=" $(quoted "$word")"; done
  printf '%s\n' "${line# }"
  [[ $dry_run ]] || "$@"
}

on_workers() {
  run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all "--command=$1"
}

request() {
  run gcloud compute tpus queued-resources create "$name" "--node-id=$name" "${place[@]}" \
    "--accelerator-type=$accelerator" "--runtime-version=$version" \
    ${spot[@]+"${spot[@]}"} # old versions of bash refuse an empty array
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
}

# The last line is the state; in a dry run the resource is always there.
state() {
  local try
  for try in 1 2 3 4 5; do
    ((try == 1)) || sleep "$poll" # the network may be away for a moment
    if run gcloud compute tpus queued-resources describe "$name" "${place[@]}" \
      '--format=value(state.state)'; then
      [[ ! $dry_run ]] || echo ACTIVE
      return
    fi
  done
  return 1
}

# Waits for the TPU; a resource that is preempted meanwhile is requested again.
wait_for_tpu() {
  local answer
  while true; do
    answer=$(state)
    printf '%s\n' "$answer" | head -n 1
    case ${answer##*$'\n'} in
      ACTIVE) return ;;
      FAILED) fail "the request for $accelerator in $zone failed; delete $name and try again" 1 ;;
      SUSPENDED) delete && request ;;
    esac
    sleep "$poll"
  done
}

install() {
  local command='python3 -m pip install --quiet --user uv && mkdir -p kdjax'
  command+=" && tar -xzf $archive -C kdjax && cd kdjax"
  command+=' && python3 -m uv venv --quiet --clear --python=3.12 .venv'
  command+=' && python3 -m uv pip install --quiet --python=.venv/bin/python'
  command+=' --constraint=constraints.txt "jax[tpu]" -e ".[gcs]"'
  run gcloud compute tpus tpu-vm scp "$archive" "$name:" "${place[@]}" --worker=all
  on_workers "$command"
}

train() {
  local command='cd kdjax && .venv/bin/python -m kdjax train' word
  case $accelerator in
    v5litepod-[148] | v6e-[148]) ;; # one host
    *) command+=' --distributed' ;;
  esac
  for word in "--config=$config" "--workdir=$workdir" ${overrides[@]+"${overrides[@]}"}; do
    command+=" $(quoted "$word")"
  done
  on_workers "$command"
}

copy_report() {
  local file files=()
  run mkdir -p "$out"
  for file in report.html report.json metrics.jsonl; do files+=("${workdir%/}/$file"); done
  if [[ $workdir == gs://* ]]; then
    run gcloud storage cp "${files[@]}" "$out"
  else
    run gcloud compute tpus tpu-vm scp "${files[@]/#/$name:}" "$out" "${place[@]}" --worker=0
  fi
}

run git archive --format=tar.gz "--output=$archive" HEAD
request
wait_for_tpu
install
while true; do
  status=0
  train || status=$?
  case $status in
    0) break ;;
    75) echo "tpu_run.sh: stopped by a signal and saved; starting again" >&2 ;;
    1 | 137 | 143 | 255) # a failure, or a worker that vanished: the state of the resource tells
      sleep "$poll"
      answer=$(state)
      if [[ $status == 1 && $answer == *ACTIVE ]]; then
        fail "the run failed; $name still runs and is charged" 1
      fi
      echo "tpu_run.sh: a worker was lost; starting again from the last checkpoint" >&2
      ;;
    *) fail "the train command ended with status $status; $name still runs and is charged" "$status" ;;
  esac
  ((restarts-- > 0)) || fail "preempted too often; the same command resumes" 75
  answer=$(state)
  if [[ $answer != *ACTIVE ]]; then
    delete
    request
    wait_for_tpu
    install
  fi
done
copy_report
[[ $keep ]] || delete
