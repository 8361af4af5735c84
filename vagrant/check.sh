#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Walk through a VM as README.md tells it, on a small box, and say how long each step took. For CI, and for hosts
# without systemd, KVM or a way to download boxes: everything is emulated, and leaves nothing behind but the box.

set -euo pipefail

usage() {
    cat <<'END'
Usage: sudo vagrant/check.sh [debian12|debian13] [COMMAND]

Has the Vagrantfile validated for libvirt and VirtualBox. Makes a box, kept in $XDG_CACHE_HOME/pktdrop (else
~/.cache/pktdrop) until bootstrap or setup.cfg change; then, with software emulation: vagrant up, COMMAND in the VM as
root in the checkout (vagrant/walk.py if none is named), destroy.
PKTDROP_DRIVER=kvm uses the hardware. Needs what build-box.sh and with-libvirtd.sh need, and vagrant-libvirt rsync.
END
}

# Run a step and say how long it took; stop where it fails.
step() {
    local name=$1 start=$SECONDS rc=0
    shift
    "$@" || rc=$?
    printf '== %s: exit %s, %s s\n' "$name" "$rc" "$((SECONDS - start))" >&2
    return "$rc"
}

# Have Vagrant read the settings of all machines for both providers, with the boxes that users get. Of VirtualBox itself
# it asks nothing before that but the version: where there is none, that is made up.
validate() {
    local provider
    mkdir "$VAGRANT_HOME/bin"
    printf '#!/bin/sh\necho 7.0.0r0\n' >"$VAGRANT_HOME/bin/VBoxManage"
    chmod +x "$VAGRANT_HOME/bin/VBoxManage"
    for provider in libvirt virtualbox; do
        PATH=$PATH:$VAGRANT_HOME/bin VAGRANT_CWD=$here VAGRANT_DOTFILE_PATH=$VAGRANT_HOME/machines \
            VAGRANT_DEFAULT_PROVIDER=$provider vagrant validate --no-tty || return
    done
}

# Inside with-libvirtd.sh. The VM ends with libvirtd, whatever happens; destroy is run as the walk has it.
inside() {
    local rc=0
    cd -- "$here"
    step 'vagrant up' vagrant up --no-tty --no-color "$machine" || return
    step "$command" vagrant ssh "$machine" -c "cd /vagrant && sudo $command" || rc=$?
    step 'vagrant destroy' vagrant destroy --no-tty -f "$machine" || rc=$?
    return "$rc"
}

here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
readonly here
if [[ ${1-} == --inside ]]; then
    readonly machine=$2 command=$3
    inside
    exit
fi

case ${1-debian12} in
    -h | --help)
        usage
        exit 0
        ;;
    debian12 | debian13) ;;
    *)
        usage >&2
        exit 2
        ;;
esac
readonly machine=${1-debian12} command=${2-vagrant/walk.py}
((EUID == 0)) || {
    printf 'check: only root can make a box and run libvirtd\nRun it again: sudo %s %s\n' "$0" "$*" >&2
    exit 1
}

VAGRANT_HOME=$(mktemp -d)
trap 'rm -rf -- "$VAGRANT_HOME"' EXIT
export VAGRANT_HOME
step 'vagrant validate' validate

cache=${XDG_CACHE_HOME:-$HOME/.cache}/pktdrop
key=$(cat "$here/build-box.sh" "$here/../bootstrap" "$here/../setup.cfg" | sha256sum)
box=$cache/$machine-${key:0:12}.box
mkdir -p "$cache"
# a second check waits, and finds the box made
exec {lock}<"$cache"
flock "$lock"
if ! [[ -e $box ]]; then
    rm -f -- "$cache/$machine"-*.box
    step 'build-box.sh' "$here/build-box.sh" "$machine" "$box.part"
    mv -- "$box.part" "$box"
fi

export PKTDROP_BOX=pktdrop/%s PKTDROP_DRIVER=${PKTDROP_DRIVER:-qemu}
# where there is a Vagrantfile, this would leave a .vagrant beside it
cd -- "$VAGRANT_HOME"
step 'vagrant box add' vagrant box add --no-tty --name "pktdrop/$machine" --provider libvirt "$box"
exec {lock}<&-
"$here/with-libvirtd.sh" "$here/check.sh" --inside "$machine" "$command"
