#!/usr/bin/env bash
# A pod slice through a queued resource, which waits until there is room (docs/tpu.md).
# shellcheck source-path=SCRIPTDIR source=machines.sh
source "$(dirname "$0")/machines.sh"

state() {
  local found node
  found=$(gcloud_here compute tpus queued-resources list --filter="name~/$TPU_NAME\$" \
    --format='value(state.state)') || found=unknown
  case $found in
    unknown) echo unknown ;;
    '') echo none ;;
    FAILED) echo failed ;;
    SUSPENDED) echo lost ;;
    ACTIVE)
      # A preempted slice can be gone before its request says so.
      node=$(node_state)
      [[ $node != none ]] || node=lost
      echo "$node"
      ;;
    *) echo waiting ;;
  esac
}

# Only gcloud's alpha track knows flex-start.
request() {
  local flex=()
  [[ -z $FLEX_START ]] || flex=(--provisioning-model=flex-start --max-run-duration="$FLEX_START")
  gcloud_here ${FLEX_START:+alpha} compute tpus queued-resources create "$TPU_NAME" --node-id="$TPU_NAME" \
    --accelerator-type="$ACCELERATOR_TYPE" --runtime-version="$RUNTIME_VERSION" ${SPOT:+--spot} \
    ${flex[@]+"${flex[@]}"} ${CREATE_FLAGS[@]+"${CREATE_FLAGS[@]}"}
}

# A request that failed or was suspended still counts against the quota.
release() { gcloud_here compute tpus queued-resources delete "$TPU_NAME" --force --quiet; }

explain() { gcloud_here compute tpus queued-resources describe "$TPU_NAME"; }

main "$@"
