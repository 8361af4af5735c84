#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# shellcheck shell=sh
#
# The first process in the guest: mount the host's root and the packages of this kernel over 9p, a writable layer in
# memory above them, and go on there with start.sh. $trees and $shares come from /settings, see machine.py.

/bin/busybox mkdir -p /proc /sys /dev /tmp /layers /new
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

die() {
    echo "pktdrop-vm: $*" >/dev/kmsg
    poweroff -f
}

mount_9p() {
    mount -t 9p -o "$3,trans=virtio,version=9p2000.L,msize=512000" "$1" "$2" || die "no 9p mount of $1"
}

while read -r module; do
    insmod "/modules/$module" || die "insmod $module failed"
done </modules/order
trees='' shares=''
# shellcheck source=/dev/null
. /settings

mount -t tmpfs -o size=80% tmpfs /layers
mkdir /layers/upper /layers/work
# files that are used a lot, see warm.py
[ ! -b /dev/vda ] || tar -x -f /dev/vda -C /layers/upper
lower=
for tree in $trees; do
    mkdir "/layers/$tree"
    mount_9p "$tree" "/layers/$tree" ro,cache=loose
    lower=${lower:+$lower:}/layers/$tree
done
mount -t overlay -o "lowerdir=$lower,upperdir=/layers/upper,workdir=/layers/work" overlay /new || die 'no overlay'
# what the host runs on is none of the guest's business
for directory in run var/cache/pktdrop; do
    mkdir -p "/new/$directory"
    mount -t tmpfs -o mode=755 tmpfs "/new/$directory" # a cache that others may write is refused
done
mkdir -p /new/run/netns /new/run/pktdrop-vm
for share in $shares; do
    mkdir -p "/new/${share#*:}"
    mount_9p "${share%%:*}" "/new/${share#*:}" rw
done

mount --move /proc /new/proc
mount --move /sys /new/sys
mount --move /dev /new/dev
mkdir -p /new/dev/net /new/dev/pts /new/dev/shm
mknod /new/dev/net/tun c 10 200 # opening it loads the module
mount -t devpts devpts /new/dev/pts
mount -t tmpfs tmpfs /new/dev/shm
ln -sf /proc/self/fd /new/dev/fd
for system in bpf:fs/bpf tracefs:kernel/tracing debugfs:kernel/debug securityfs:kernel/security cgroup2:fs/cgroup; do
    mount -t "${system%%:*}" "${system%%:*}" "/new/sys/${system#*:}"
done
cp /bin/busybox /start.sh /command /new/run/pktdrop-vm
exec switch_root /new /run/pktdrop-vm/busybox sh /run/pktdrop-vm/start.sh
