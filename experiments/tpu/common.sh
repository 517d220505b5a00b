# shellcheck shell=bash
# What vm.sh, pod.sh and gke.sh share: settings, checks, the copy of the code, --dry_run.
set -euo pipefail

SELF=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
DRY_RUN='' SPOT='' FLEX_START='' DATA='' WORKER=0 COMMIT=HEAD ARGS=() CREATE_FLAGS=()
: "${POLL_S:=60}" # how often a state is asked for
exec 3>&1 # where --dry_run prints, also from inside $(...)

# Accelerator type, topology for passk_jax.plan, chips, hosts (TPU VMs), runtime version.
# v5p counts cores in its name, two a chip.
TYPES="
v5litepod-4    v5e:2x2      4   1  v2-alpha-tpuv5-lite
v5litepod-8    v5e:2x4      8   1  v2-alpha-tpuv5-lite
v5litepod-16   v5e:4x4     16   4  v2-alpha-tpuv5-lite
v5litepod-32   v5e:4x8     32   8  v2-alpha-tpuv5-lite
v5litepod-64   v5e:8x8     64  16  v2-alpha-tpuv5-lite
v5litepod-128  v5e:8x16   128  32  v2-alpha-tpuv5-lite
v5litepod-256  v5e:16x16  256  64  v2-alpha-tpuv5-lite
v5p-8          v5p:2x2x1    4   1  v2-alpha-tpuv5
v5p-16         v5p:2x2x2    8   2  v2-alpha-tpuv5
v5p-32         v5p:2x2x4   16   4  v2-alpha-tpuv5
v5p-64         v5p:2x4x4   32   8  v2-alpha-tpuv5
v5p-128        v5p:4x4x4   64  16  v2-alpha-tpuv5
v5p-256        v5p:4x4x8  128  32  v2-alpha-tpuv5
v6e-4          v6e:2x2      4   1  v2-alpha-tpuv6e
v6e-8          v6e:2x4      8   1  v2-alpha-tpuv6e
v6e-16         v6e:4x4     16   4  v2-alpha-tpuv6e
v6e-32         v6e:4x8     32   8  v2-alpha-tpuv6e
v6e-64         v6e:8x8     64  16  v2-alpha-tpuv6e
v6e-128        v6e:8x16   128  32  v2-alpha-tpuv6e
v6e-256        v6e:16x16  256  64  v2-alpha-tpuv6e
"

die() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

say() { printf '# %s\n' "$*" >&2; }

# The arguments as one line of shell that gives them back.
quoted() {
  local word line=
  for word in "$@"; do
    case $word in
      '' | *[!a-zA-Z0-9_@%+=:,./-]*)
        word="'$(printf %s "$word" | sed "s/'/'\\\\''/g")'"
        ;;
    esac
    line+="${line:+ }$word"
  done
  printf %s "$line"
}

# Runs a command; with --dry_run prints it.
call() {
  if [[ $DRY_RUN ]]; then
    printf '%s\n' "$(quoted "$@")" >&3
  else
    "$@"
  fi
}

# gcloud, in the zone and project of the settings.
gcloud_here() { call gcloud "$@" --zone="$ZONE" --project="$PROJECT_ID"; }

# Reads `[--setting value]... [-- ARGUMENTS]`.
# shellcheck disable=SC2034 # CLUSTER and WORKER are for the scripts that source this one.
read_settings() {
  while (($#)); do
    case $1 in
      --project=*) PROJECT_ID=${1#*=} ;;
      --zone=*) ZONE=${1#*=} ;;
      --name=*) TPU_NAME=${1#*=} ;;
      --type=*) ACCELERATOR_TYPE=${1#*=} ;;
      --cluster=*) CLUSTER=${1#*=} ;;
      --data=*) DATA=${1#*=} ;;
      --commit=*) COMMIT=${1#*=} ;;
      --worker=*) WORKER=${1#*=} ;;
      --spot) SPOT=yes ;;
      --flex_start=*) FLEX_START=${1#*=} ;;
      --reserved) CREATE_FLAGS+=(--reserved) ;;
      --network=* | --subnetwork=* | --service-account=*) CREATE_FLAGS+=("$1") ;;
      --create_flag=*) CREATE_FLAGS+=("${1#*=}") ;;
      --dry_run) DRY_RUN=yes ;;
      --project | --zone | --name | --type | --cluster | --data | --commit | --worker | \
        --flex_start | --network | --subnetwork | --service-account | --create_flag)
        (($# > 1)) || die "$1 needs a value"
        set -- "$1=$2" "${@:3}"
        continue
        ;;
      --)
        ARGS=("${@:2}")
        break
        ;;
      *) die "unknown setting $1; what follows a lone -- goes to the program" ;;
    esac
    shift
  done
  need PROJECT_ID --project "the id of your Google Cloud project"
  need ZONE --zone "where the TPU is, such as us-west4-a"
  need TPU_NAME --name "what you call this TPU, or this run on GKE"
  need ACCELERATOR_TYPE --type "such as v5litepod-128"
  [[ $TPU_NAME =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
    die "--name=$TPU_NAME: small letters, digits and hyphens, a letter first"
  [[ $ZONE =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] || die "--zone=$ZONE is no zone: such as us-west4-a"
  [[ -z $DATA || -d $DATA ]] || die "--data=$DATA is no folder"
  [[ -z $FLEX_START || $FLEX_START =~ ^[0-9]+[smhd]$ ]] ||
    die "--flex_start=$FLEX_START is no duration: how long the machines may run, such as 8h"
  [[ -z $FLEX_START || -z $SPOT ]] || die "--flex_start and --spot: give one of them"
  REGION=${ZONE%-*}
  read_type
  read_commit
}

need() {
  [[ ${!1:-} ]] || die "$2 is missing: $3. Give $2=..., or export $1=..."
}

read_type() {
  local type topology chips hosts runtime
  while read -r type topology chips hosts runtime; do
    [[ $type == "$ACCELERATOR_TYPE" ]] || continue
    TOPOLOGY=$topology CHIPS=$chips HOSTS=$hosts
    : "${RUNTIME_VERSION:=$runtime}"
    return
  done <<<"$TYPES"
  die "--type=$ACCELERATOR_TYPE is unknown: one of $(awk 'NF {print $1}' <<<"$TYPES" | paste -sd ' ' -)"
}

read_commit() {
  local given=$COMMIT
  git -C "$ROOT" rev-parse --verify --quiet HEAD >/dev/null 2>&1 ||
    die "$ROOT is not a git checkout with a commit: a run is named by the commit that it runs"
  COMMIT=$(git -C "$ROOT" rev-parse --verify --quiet --short=12 "$given^{commit}") ||
    die "--commit=$given is no commit of $ROOT"
  STAGE=$ROOT/build/tpu/passk_jax-$COMMIT
}

warn_of_changes() {
  [[ -z $(git -C "$ROOT" status --porcelain --untracked-files=no) ]] ||
    say "warning: uncommitted changes stay here; what runs is commit $COMMIT"
}

# The value of --$1 among the program's arguments.
argument() {
  local i
  for ((i = 0; i < ${#ARGS[@]}; i++)); do
    case ${ARGS[i]} in
      "--$1="*) printf %s "${ARGS[i]#*=}" ;;
      "--$1") printf %s "${ARGS[i + 1]:-}" ;;
    esac
  done
}

# What passk_jax.train would only find out on the TPU.
check_arguments() {
  local config workdir file
  config=$(argument config) workdir=$(argument workdir)
  file=${config%%:*}
  [[ $file =~ ^[A-Za-z0-9_]+$ ]] && file=configs/$file.py # a shipped config by its name
  [[ $config ]] || die "the program's --config is missing: ... -- --config configs/x.py --workdir ..."
  git -C "$ROOT" cat-file -e "$COMMIT:$file" 2>/dev/null ||
    die "--config $config is not in commit $COMMIT: commit it, and name it from the top folder"
  [[ $workdir ]] || die "the program's --workdir is missing"
  [[ $workdir == gs://* || ($HOSTS == 1 && -z $SPOT && -z $FLEX_START) ]] ||
    die "--workdir $workdir: several hosts, or one that is taken away, need a gs:// folder"
}

# The settings against Google Cloud. The script that calls it says what has the quota, QUOTA_API,
# and how to ask for a machine type, is_offered.
check() {
  local account bucket location seen=
  warn_of_changes
  [[ $DRY_RUN ]] || command -v gcloud >/dev/null ||
    die "there is no gcloud here: https://cloud.google.com/sdk/docs/install"
  account=$(call gcloud auth list --filter=status:ACTIVE --format='value(account)')
  [[ $DRY_RUN || $account ]] || die "gcloud has no account: gcloud auth login"
  is_offered >&2 || die "$ZONE offers $PROJECT_ID no $ACCELERATOR_TYPE, or its API is not enabled"
  for bucket in $(quoted ${ARGS[@]+"${ARGS[@]}"} | grep -o 'gs://[a-z0-9._-]*' | sort -u); do
    location=$(call gcloud storage buckets describe "$bucket" --format='value(location)') ||
      die "$bucket cannot be read: gcloud storage buckets create $bucket --location=$REGION"
    location=$(tr '[:upper:]' '[:lower:]' <<<"$location")
    [[ $DRY_RUN || $location == "$REGION" ]] ||
      say "warning: $bucket is in $location, the TPU in $REGION: slower, and the traffic is charged"
    seen=yes
  done
  [[ $seen ]] || say "no gs:// folder among the program's arguments: no bucket was looked at"
  say "does it fit? python -m passk_jax.plan --config ... --topology $TOPOLOGY"
  say "quota for $CHIPS ${SPOT:+preemptible }chips of ${TOPOLOGY%%:*} in $ZONE is needed:" \
    "https://console.cloud.google.com/iam-admin/quotas, $QUOTA_API"
}

# The committed tree, and --data in its folder data, in $STAGE.
stage() {
  warn_of_changes
  call rm -rf "$STAGE" "$STAGE.tar"
  call mkdir -p "$STAGE/data"
  call git -C "$ROOT" archive --output="$STAGE.tar" "$COMMIT"
  call tar -xf "$STAGE.tar" -C "$STAGE"
  [[ -z $DATA ]] || call cp -R "$DATA/." "$STAGE/data"
}

say_price() {
  say "$CHIPS chips are $CHIPS chip-hours an hour, $((CHIPS * 24)) a day, until you say:" \
    "experiments/tpu/$(basename "$SELF") delete"
}
