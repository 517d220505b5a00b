#!/usr/bin/env bash
# Runs on a host of a TPU, from the folder that a commit was unpacked in; vm.sh and pod.sh call it.
set -euo pipefail
cd "$(dirname "$0")/../.."
HERE=$(pwd -P)
UNIT=passk_jax.service
export PASSK_DATA=$HERE/data

setup() {
  local uv=$HOME/.local/bin/uv version
  # A new VM upgrades itself, and holds apt's lock while it does. bubblewrap and libseccomp2 are for
  # tasks that run programs.
  sudo apt-get -o DPkg::Lock::Timeout=600 -qq update
  sudo apt-get -o DPkg::Lock::Timeout=600 -qq --yes install make bubblewrap libseccomp2
  # The image's own Python may be too old; uv fetches one that passk_jax runs on.
  version=$(sed -n 's/^UV_VERSION := //p' Makefile)
  python3 -m pip install --quiet --user "uv==$version"
  "$uv" python install 3.12
  PYTHON=$("$uv" python find --managed-python 3.12) make setup-tpu
  ln -sfn "$HERE" "$HOME/passk_jax"
}

# Trains with the arguments, as a service: it outlives the ssh session, is started again when it
# fails, and after a reboot.
start() {
  {
    echo "cd $(printf %q "$HERE")"
    echo "export PASSK_DATA=$(printf %q "$PASSK_DATA") PYTHONUNBUFFERED=1"
    echo "exec .venv/bin/python -m passk_jax.train $(printf '%q ' "$@")"
  } >train.sh.new
  if systemctl is-active --quiet "$UNIT"; then
    cmp -s train.sh train.sh.new || {
      echo "error: another run is going on this host: stop it first" >&2
      exit 2
    }
    echo "it is running already"
    return
  fi
  mv train.sh.new train.sh
  rm -f exit_status stopped
  sed "s|@HERE@|$HERE|; s|@USER@|$(id -un)|" experiments/tpu/$UNIT >$UNIT
  sudo cp $UNIT /etc/systemd/system/$UNIT
  sudo systemctl daemon-reload
  sudo systemctl reset-failed $UNIT 2>/dev/null || true
  sudo systemctl enable --now $UNIT
}

# running, finished, stopped, interrupted, not started, or failed and its exit status.
status() {
  case $(systemctl show --property=ActiveState --value "$UNIT") in
    active | activating | deactivating | reloading) echo running ;;
    *)
      case $(cat exit_status 2>/dev/null) in
        '') echo "not started" ;;
        0) echo finished ;;
        # By the verb stop, or because the machine goes down.
        130 | 143) [[ -e stopped ]] && echo stopped || echo interrupted ;;
        *) echo "failed with exit status $(cat exit_status)" ;;
      esac
      ;;
  esac
}

logs() { sudo journalctl --unit=$UNIT --lines=100 --no-pager "$@"; }

each() { exec "$@"; }

# Waits until the step in progress is done and its checkpoint saved.
stop() {
  touch stopped
  sudo systemctl disable --now $UNIT
}

"$@"
