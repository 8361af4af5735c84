#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Run in a VM by `vagrant up` and `vagrant provision`, as root: make the command pktdrop, and see that it can trace.

set -euo pipefail

readonly checkout=${1:-/vagrant}

# Where there is no apt-get, bootstrap names what is missing but installs nothing.
if command -v dnf >/dev/null; then
    dnf -q -y install \
        python3-bcc python3-click python3-pip python3-tabulate \
        ShellCheck bpftool busybox conntrack-tools gcc glibc-devel iproute iproute-tc iptables-legacy net-tools nftables \
        podman procps-ng ruby runc sysstat tmux util-linux wireshark-cli
fi

"$checkout/bootstrap" doctor
