#!/usr/bin/env bash
# A run on Google Kubernetes Engine, through XPK (docs/tpu.md).
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$0")/common.sh"
QUOTA_API="Compute Engine API"

usage() {
  cat <<USAGE
usage: gke.sh VERB [--setting value]... [-- ARGUMENTS]

  check   the settings against Google Cloud, before anything is paid for
  create  the cluster, with one slice of the accelerator type
  start   build an image of the commit and train in it, with ARGUMENTS; restarted when it fails
  status  of the runs on the cluster
  logs    follow the log of the first host
  stop    delete the run; its hosts save a checkpoint first. The cluster stays, and costs
  delete  delete the cluster

settings, or what to export instead:
  --project PROJECT_ID   --zone ZONE   --name TPU_NAME   --type ACCELERATOR_TYPE
  --cluster CLUSTER
  --spot                 machines that cost less and can be taken away
  --create_flag=FLAG     any other flag of xpk cluster create: --create_flag=--reservation=NAME and
                         --create_flag=--flex take the place of on-demand machines
  --data FOLDER          put into the image, as the folder data next to the code
  --commit COMMIT        what the image is made of; HEAD unless given
  --dry_run              print the commands and run none
USAGE
}

xpk_here() {
  [[ $DRY_RUN ]] || command -v xpk >/dev/null || die "there is no xpk here: pip install xpk"
  call xpk "$@" --cluster="$CLUSTER" --project="$PROJECT_ID" --zone="$ZONE"
}

# XPK makes hosts of four chips, also for the types of eight.
is_offered() {
  local machine
  case $ACCELERATOR_TYPE in
    v5litepod-*) machine=ct5lp-hightpu-4t ;;
    v5p-*) machine=ct5p-hightpu-4t ;;
    v6e-*) machine=ct6e-standard-4t ;;
  esac
  gcloud_here compute machine-types describe "$machine"
}

verb_check() { check; }

verb_create() {
  local capacity=(--on-demand)
  [[ -z $SPOT ]] || capacity=(--spot)
  # XPK takes one kind of capacity, and names a reservation and flex-start by flags of its own.
  [[ " ${CREATE_FLAGS[*]-} " != *" --reservation="* && " ${CREATE_FLAGS[*]-} " != *" --flex "* ]] ||
    capacity=()
  xpk_here cluster create --tpu-type="$ACCELERATOR_TYPE" --num-slices=1 \
    ${capacity[@]+"${capacity[@]}"} ${CREATE_FLAGS[@]+"${CREATE_FLAGS[@]}"}
  say_price
}

verb_start() {
  check_arguments
  [[ $(argument workdir) == gs://* ]] || die "the disk of a container is lost: --workdir gs://..."
  build
  # 1 is how the hosts end that lose another one; XPK restarts on 42 and 127 to 255 by itself.
  xpk_here workload create --workload="$TPU_NAME" --tpu-type="$ACCELERATOR_TYPE" \
    --docker-image="$IMAGE" --max-restarts=50 --restart-on-exit-codes=1 \
    --termination-grace-period-seconds=300 \
    --command="exec .venv/bin/python -m passk_jax.train --distributed $(quoted "${ARGS[@]}")"
}

# Cloud Build makes the image: no Docker is needed here, and its network is the fast one.
build() {
  local repository=(passk-jax --location="$REGION" --project="$PROJECT_ID")
  IMAGE=$REGION-docker.pkg.dev/$PROJECT_ID/passk-jax/passk_jax:$COMMIT
  if [[ -z $DRY_RUN ]] && gcloud artifacts docker images describe "$IMAGE" >/dev/null 2>&1; then
    say "$IMAGE is built already"
    return
  fi
  if [[ $DRY_RUN ]] || ! gcloud artifacts repositories describe "${repository[@]}" >/dev/null 2>&1; then
    call gcloud artifacts repositories create "${repository[@]}" --repository-format=docker
  fi
  stage
  call cp "$STAGE/experiments/tpu/Dockerfile" "$STAGE/Dockerfile"
  call gcloud builds submit "$STAGE" --tag="$IMAGE" --timeout=3600 --project="$PROJECT_ID"
}

verb_status() { xpk_here workload list; }

verb_logs() {
  call gcloud container clusters get-credentials "$CLUSTER" --region="$REGION" --project="$PROJECT_ID"
  call kubectl logs --follow --tail=100 --container=jax-tpu \
    --selector="jobset.sigs.k8s.io/jobset-name=$TPU_NAME,batch.kubernetes.io/job-completion-index=0"
}

verb_stop() { xpk_here workload delete --workload="$TPU_NAME"; }

verb_delete() { xpk_here cluster delete; }

case ${1:-} in
  check | create | start | status | logs | stop | delete) ;;
  '' | -h | --help)
    usage
    exit
    ;;
  *) die "unknown verb $1; gke.sh --help lists them" ;;
esac
read_settings "${@:2}"
[[ -z $FLEX_START ]] || die "--flex_start: on GKE it is --create_flag=--flex"
[[ " ${CREATE_FLAGS[*]-} " != *" --reserved "* ]] ||
  die "--reserved: on GKE it is --create_flag=--reservation=NAME"
need CLUSTER --cluster "the name of the GKE cluster"
"verb_$1"
