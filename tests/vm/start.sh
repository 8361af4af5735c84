#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# shellcheck shell=sh
#
# The guest's first process once its root is in place: run the command, tell the host how it ended, switch off.
# Everything goes through ports of virtio-serial: the command's output through 1 and 2, what this script says through 3.

busybox=/run/pktdrop-vm/busybox
i=0
until set -- /dev/vport*p3 && [ -e "$1" ]; do # ports are numbered by device, and devices come in any order
    i=$((i + 1))
    [ $i -lt 500 ] || $busybox poweroff -f
    $busybox usleep 20000
done
port=${1%3}
$busybox hostname pktdrop-vm
$busybox ip link set lo up
export HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb

exec 3>"${port}3"
echo start >&3
(cd / && exec /bin/sh /run/pktdrop-vm/command) </dev/null >"${port}1" 2>"${port}2" 3>&-
echo "status $?" >&3
exec 3>&-
$busybox poweroff -f
