#!/usr/bin/env bash
# One TPU VM, made at once or not at all (docs/tpu.md).
# shellcheck source-path=SCRIPTDIR source=machines.sh
source "$(dirname "$0")/machines.sh"

state() { node_state; }

request() {
  [[ -z $FLEX_START ]] || die "--flex_start: only a queued resource can wait for room: pod.sh"
  gcloud_here compute tpus tpu-vm create "$TPU_NAME" \
    --accelerator-type="$ACCELERATOR_TYPE" --version="$RUNTIME_VERSION" ${SPOT:+--spot} \
    ${CREATE_FLAGS[@]+"${CREATE_FLAGS[@]}"}
}

release() { gcloud_here compute tpus tpu-vm delete "$TPU_NAME" --quiet; }

explain() { gcloud_here compute tpus tpu-vm describe "$TPU_NAME"; }

main "$@"
