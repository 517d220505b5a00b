# shellcheck shell=bash
# The verbs of vm.sh and pod.sh: machines that are reached by ssh. A script that sources this one
# defines state (none, waiting, active, lost, failed or unknown), request, release and explain.
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
QUOTA_API="Cloud TPU API"

usage() {
  cat <<USAGE
usage: $(basename "$SELF") VERB [--setting value]... [-- ARGUMENTS]

  check   the settings against Google Cloud, before anything is paid for
  run     create, setup, start, watch; and with --spot all again when the machines are taken away
  create  ask for the machines and wait until they are there
  setup   copy the commit to every host and make its environment
  start   train on every host, with ARGUMENTS; outlives this terminal, crashes and reboots
  status  of the machines and of the training, and the chip-hours so far
  logs    follow the log of a host (--worker 0)
  each    run the command ARGUMENTS on every host, in the folder of the code
  stop    stop training; the hosts save a checkpoint first. The machines stay, and cost
  delete  delete the machines

settings, or what to export instead:
  --project PROJECT_ID   --zone ZONE   --name TPU_NAME   --type ACCELERATOR_TYPE
  --spot                 machines that cost less and can be taken away
  --reserved             machines of your reservation
  --flex_start DURATION  machines for at most so long, such as 8h, when there is room (pod.sh)
  --network NAME   --subnetwork NAME   --service-account EMAIL
  --create_flag=FLAG     any other flag of gcloud's create, such as --create_flag=--internal-ips
  --data FOLDER          copied along, as the folder data next to the code
  --commit COMMIT        what is copied; HEAD unless given
  --dry_run              print the commands and run none

RUNTIME_VERSION, exported, takes the place of the one that belongs to the type.
USAGE
}

main() {
  case ${1:-} in
    check | run | create | setup | start | status | logs | each | stop | delete) ;;
    '' | -h | --help)
      usage
      exit
      ;;
    *) die "unknown verb $1; $(basename "$SELF") --help lists them" ;;
  esac
  read_settings "${@:2}"
  "verb_$1"
}

is_offered() { gcloud_here compute tpus accelerator-types describe "$ACCELERATOR_TYPE"; }

verb_check() { check; }

verb_create() {
  local asked=
  while :; do
    case $(state) in
      active)
        say "$TPU_NAME is there"
        say_price
        return
        ;;
      none)
        [[ -z $asked ]] || die "$TPU_NAME was asked for and is gone: deleted by somebody?"
        request
        asked=yes
        if [[ $DRY_RUN ]]; then
          say "and so on until it is there"
          say_price
          return
        fi
        ;;
      waiting)
        asked=yes
        say "$(date +%H:%M:%S) waiting for $TPU_NAME"
        ;;
      lost)
        [[ $SPOT ]] || die "$TPU_NAME is stopped or terminated, and its disk may hold something:" \
          "start it again with gcloud compute tpus tpu-vm start, or delete it"
        say "$TPU_NAME was taken away: asking again"
        release
        asked=
        continue
        ;;
      failed)
        if [[ $asked ]]; then
          explain >&2
          die "Google Cloud refused $TPU_NAME, for the reason above"
        fi
        say "an old request $TPU_NAME failed: asking again"
        release
        continue
        ;;
      unknown) say "$(date +%H:%M:%S) no answer from gcloud" ;;
    esac
    sleep "$POLL_S"
  done
}

verb_setup() {
  stage
  call tar -czf "$STAGE.tar.gz" -C "$(dirname "$STAGE")" "$(basename "$STAGE")"
  gcloud_here compute tpus tpu-vm scp "$STAGE.tar.gz" "$TPU_NAME:" --worker=all
  on_host all "tar -xzf passk_jax-$COMMIT.tar.gz && bash passk_jax-$COMMIT/experiments/tpu/host.sh setup"
}

verb_start() {
  local arguments
  check_arguments
  arguments=("${ARGS[@]}")
  ((HOSTS == 1)) || arguments=(--distributed "${arguments[@]}")
  host_sh all start "${arguments[@]}"
}

verb_run() {
  # Each verb in a process of its own, and all with the commit of the first time.
  local settings=(--project="$PROJECT_ID" --zone="$ZONE" --name="$TPU_NAME"
    --type="$ACCELERATOR_TYPE" --data="$DATA" --commit="$COMMIT"
    ${SPOT:+--spot} ${FLEX_START:+--flex_start="$FLEX_START"} ${DRY_RUN:+--dry_run})
  local flag
  for flag in ${CREATE_FLAGS[@]+"${CREATE_FLAGS[@]}"}; do settings+=(--create_flag="$flag"); done
  check_arguments
  check
  while :; do
    bash "$SELF" create "${settings[@]}"
    # The machines can be taken away at any moment: what fails then is begun again.
    if bash "$SELF" setup "${settings[@]}" && bash "$SELF" start "${settings[@]}" -- "${ARGS[@]}"; then
      watch
    elif [[ $(state) == active ]]; then
      say_price
      die "$TPU_NAME could not be set up or started, for the reason above"
    fi
    [[ -z $DRY_RUN ]] || return 0
    # What Google Cloud takes away is still listed.
    [[ $(state) != none ]] || die "$TPU_NAME was deleted by somebody: it is not asked for again"
  done
}

# Returns when the machines are lost, exits when the training ends.
watch() {
  local training
  say "watching; Ctrl-C ends that and nothing else. The log: experiments/tpu/$(basename "$SELF") logs"
  while [[ $(state) =~ ^(active|waiting|unknown)$ || $DRY_RUN ]]; do
    training=$(host_sh 0 status) || training="no answer from host 0"
    [[ -z $DRY_RUN ]] || return 0
    say "$(date +%H:%M:%S) training: $training"
    case $training in
      finished | stopped)
        say_price
        exit 0
        ;;
      failed*)
        host_sh 0 logs >&2 || true
        say_price
        die "training has $training; its last lines are above"
        ;;
    esac
    sleep "$POLL_S"
  done
}

verb_status() {
  local machines created training
  machines=$(state)
  [[ $DRY_RUN ]] || printf 'machines: %s\n' "$machines"
  [[ $machines == active || $DRY_RUN ]] || return 0
  created=$(nodes 'createTime.date(%s)')
  training=$(host_sh 0 status)
  [[ $DRY_RUN ]] || printf 'training: %s\nchip-hours since they were created: %s\n' "$training" \
    $((($(date +%s) - ${created%.*}) * CHIPS / 3600))
}

verb_logs() { host_sh "$WORKER" logs --follow; }

verb_each() {
  ((${#ARGS[@]})) || die "each wants a command: ... each -- .venv/bin/python -V"
  host_sh all each "${ARGS[@]}"
}

verb_stop() { host_sh all stop; }

verb_delete() {
  [[ $DRY_RUN || $(state) != none ]] || {
    say "there is no $TPU_NAME: nothing to delete, nothing to pay"
    return
  }
  release
}

# Runs a line of shell on a host, or on all.
on_host() { gcloud_here compute tpus tpu-vm ssh "$TPU_NAME" --worker="$1" --command="$2"; }

host_sh() { on_host "$1" "bash passk_jax/experiments/tpu/host.sh $(quoted "${@:2}")"; }

# A field of the TPU VM, empty where there is none.
nodes() {
  gcloud_here compute tpus tpu-vm list --filter="name~/$TPU_NAME\$" --format="value($1)"
}

node_state() {
  local found
  found=$(nodes state) || found=unknown
  case $found in
    unknown) echo unknown ;;
    '') echo none ;;
    READY) echo active ;;
    PREEMPTED | TERMINATED | STOPPED) echo lost ;;
    *) echo waiting ;;
  esac
}
