#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Run a command, say bash, beside a libvirtd of its own, for hosts without systemd and for CI.
#
# libvirtd, its bridge, dnsmasq, the VMs and the command live in network, mount and process namespaces of their own.
# Interfaces, firewall, sysctls, /etc/libvirt and /run of the host stay as they are; all ends with the command.

set -euo pipefail

usage() {
    cat <<'END'
Usage: sudo vagrant/with-libvirtd.sh COMMAND [ARGS...]

Needs: libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients dnsmasq-base iptables qemu-system-x86 qemu-utils.
END
}

# Inside the namespaces: $1 is a directory for all that libvirt writes, the rest the command.
inside() {
    local state=$1 file daemon rc=0 tries=0 name
    shift
    mkdir "$state"/{etc,lib,cache,log}
    printf 'auth_unix_%s = "none"\n' ro rw >"$state/etc/libvirtd.conf"
    # no virtlogd, cgroups or device nodes of the VM's own, for which there is no systemd here
    printf '%s\n' 'user = "root"' 'group = "root"' 'security_driver = "none"' 'stdio_handler = "file"' \
        'cgroup_controllers = []' 'namespaces = []' >"$state/etc/qemu.conf"
    mkdir -p /etc/libvirt /var/{lib,cache,log}/libvirt
    mount --bind "$state/etc" /etc/libvirt
    for name in lib cache log; do
        mount --bind "$state/$name" "/var/$name/libvirt"
    done
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/libvirt /run/lock
    # a new instance: /sys shows the interfaces of the network namespace it was mounted in
    mount -t sysfs sysfs /sys
    # libvirtd does not start without the user that a package we do not need would add
    for file in passwd group; do
        cp "/etc/$file" "$state/$file"
        mount --bind "$state/$file" "/etc/$file"
    done
    grep -q '^libvirt-qemu:' /etc/group || echo 'libvirt-qemu:x:64055:' >>/etc/group
    grep -q '^libvirt-qemu:' /etc/passwd || echo 'libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin' >>/etc/passwd
    ip link set lo up
    PATH=$PATH:/usr/sbin libvirtd >"$state/log/libvirtd" 2>&1 &
    daemon=$!
    until [[ -S /run/libvirt/libvirt-sock ]]; do
        if ! kill -0 "$daemon" 2>/dev/null || ((++tries > 300)); then
            tail -n 3 "$state/log/libvirtd" >&2
            echo 'with-libvirtd: libvirtd does not start; its last words are above' >&2
            return 1
        fi
        sleep 0.1
    done
    LIBVIRT_DEFAULT_URI=qemu:///system VAGRANT_DEFAULT_PROVIDER=libvirt VAGRANT_DOTFILE_PATH=$state/vagrant "$@" || rc=$?
    return "$rc"
}

case ${1-} in
    '')
        usage >&2
        exit 2
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    --inside)
        shift
        inside "$@"
        exit
        ;;
esac
((EUID == 0)) || {
    printf 'with-libvirtd: only root can make the namespaces\nRun it again: sudo %s %s\n' "$0" "$*" >&2
    exit 1
}
if ! PATH=$PATH:/usr/sbin command -v libvirtd >/dev/null; then
    printf 'with-libvirtd: there is no libvirtd here\n%s\n' "$(usage | tail -n 1)" >&2
    exit 1
fi
state=$(mktemp -d)
trap 'rm -rf -- "$state"' EXIT
unshare --net --mount --propagation private --pid --fork --kill-child --mount-proc -- \
    "$0" --inside "$state" "$@"
