#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Make a small Vagrant box (libvirt) from Debian's packages, for machines that cannot download one.
#
# No bootloader and no loop device: libvirt starts the kernel directly, with an initrd of our own that needs a tenth of
# the time of the distribution's under software emulation. The VM has no way out of the host, so bootstrap
# installs here, in the box, all that it would install there.

set -euo pipefail

usage() {
    cat <<'END'
Usage: sudo vagrant/build-box.sh debian12|debian13 FILE.box     make a box
       vagrant box add --name pktdrop/debian12 FILE.box         make it known to Vagrant

Needs: mmdebstrap qemu-utils e2fsprogs kmod libarchive-tools vagrant. MIRROR: another mirror than deb.debian.org.
END
}

give_up() {
    printf 'build-box: %s\n%s\n' "$1" "$2" >&2
    exit 1
}

say() {
    printf 'build-box: %s (%s s)\n' "$1" "$SECONDS" >&2
}

case ${1-} in
    debian12) suite=bookworm ;;
    debian13) suite=trixie ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
esac
(($# == 2)) || {
    usage >&2
    exit 2
}
readonly name=$1 suite
output=$(realpath -m -- "$2")
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
checkout=${here%/*}
readonly output here checkout mirror=${MIRROR:-http://deb.debian.org/debian}
# sshd, sudo, rsync and Python are what Vagrant and bootstrap take for granted; the rest is for looking around
readonly packages=linux-image-cloud-amd64,systemd-sysv,udev,dbus,busybox-static,openssh-server,sudo,rsync,ca-certificates,\
python3,iproute2,iputils-ping,kmod,procps,nftables,ethtool

missing=()
for pair in mmdebstrap qemu-img:qemu-utils mke2fs:e2fsprogs modprobe:kmod bsdtar:libarchive-tools vagrant; do
    command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
done
((${#missing[@]} == 0)) || give_up "something is missing: ${missing[*]}" "Install it: apt-get install ${missing[*]}"
((EUID == 0)) || give_up 'only root can unpack a system' "Run it again: sudo $0 $*"

# The public half of the key that every Vagrant knows, from wherever it is installed.
shopt -s nullglob
keys=(/usr/share/rubygems-integration/all/gems/vagrant-*/keys/vagrant.pub
    /opt/vagrant/embedded/gems/gems/vagrant-*/keys/vagrant.pub)
shopt -u nullglob
((${#keys[@]})) || give_up "Vagrant's key is not where Debian and HashiCorp put it." 'Install the package vagrant of either.'

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
readonly work root=$work/root box=$work/box initrd=$work/initrd
mkdir "$box" "$initrd"

# Settings of the system. $1 is its root.
configure() {
    # a password that none matches: with the default, "!", sshd without PAM takes the account for locked
    chroot "$1" useradd --create-home --shell /bin/bash --password '*' vagrant
    install -D -m 0600 -o 1000 -g 1000 -- "${keys[0]}" "$1/home/vagrant/.ssh/authorized_keys"
    chown 1000:1000 "$1/home/vagrant/.ssh"
    chmod 0700 "$1/home/vagrant/.ssh"
    echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$1/etc/sudoers.d/vagrant"
    # what costs seconds per login under software emulation is left out
    printf '%s\n' 'UseDNS no' 'UsePAM no' 'PrintMotd no' >"$1/etc/ssh/sshd_config.d/vagrant.conf"
    echo '/dev/vda / ext4 rw,noatime 0 1' >"$1/etc/fstab"
    echo "$name" >"$1/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >"$1/etc/hosts"
    printf '[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n' >"$1/etc/systemd/network/80-dhcp.network"
    chroot "$1" systemctl -q enable systemd-networkd ssh
    chroot "$1" systemctl -q mask systemd-networkd-wait-online.service systemd-timesyncd.service \
        systemd-logind.service systemd-binfmt.service systemd-pstore.service getty@tty1.service \
        systemd-update-utmp.service systemd-update-utmp-runlevel.service dev-hugepages.mount dev-mqueue.mount \
        modprobe@{drm,dm_mod,loop,fuse,efi_pstore}.service \
        {apt-daily,apt-daily-upgrade,fstrim,dpkg-db-backup,e2scrub_all}.timer e2scrub_reap.service
}

# What bootstrap installs: packages, and the virtual environment where the synced folder will be.
prepare_pktdrop() {
    mkdir "$1/vagrant"
    tar -C "$checkout" --exclude=__pycache__ --owner=0 --group=0 -cf - bootstrap setup.cfg pktdrop bpf | tar -C "$1/vagrant" -xf -
    chroot "$1" /vagrant/bootstrap --version
    find "$1/vagrant" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
    rm -f "$1"/var/cache/apt/archives/*.deb "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/*_*
}

# The way from the kernel to the root file system: busybox, modules, and a script that loads them in order.
make_initrd() {
    local release=$1 path file
    mkdir "$initrd"/{bin,dev,modules,proc,root,sys}
    cp "$root"/bin/busybox "$initrd/bin/"
    for file in virtio_pci virtio_blk crc32c_generic ext4; do
        modprobe -d "$root" -S "$release" --show-depends "$file" | sed -n 's/^insmod //p'
    done | awk '!seen[$1]++ { print $1 }' | while read -r path; do
        file=${path##*/}
        case $file in
            *.xz) xz -dc "$path" >"$initrd/modules/${file%.xz}" ;;
            *) cp "$path" "$initrd/modules/$file" ;;
        esac
        echo "${file%.xz}"
    done >"$initrd/order"
    cat >"$initrd/init" <<'END'
#!/bin/busybox sh
b=/bin/busybox
for fs in proc:proc sysfs:sys devtmpfs:dev; do $b mount -t "${fs%:*}" none "/${fs#*:}"; done
for module in $($b cat /order); do $b insmod "/modules/$module"; done
tries=0
until [ -b /dev/vda ] || [ $tries = 500 ]; do tries=$((tries + 1)); $b usleep 20000; done
$b mount -t ext4 -o noatime /dev/vda /root || { echo 'no root disk'; $b poweroff -f; }
for fs in dev proc sys; do $b mount --move "/$fs" "/root/$fs"; done
exec $b switch_root /root /sbin/init
END
    chmod +x "$initrd/init"
    (cd -- "$initrd" && bsdtar --uid 0 --gid 0 --format newc -cf - .) | gzip -1 >"$box/initrd.img"
}

# INITRD=No: nobody needs the one that the kernel's package would make. The hook is this shell's functions, in a file.
{
    echo '#!/bin/bash'
    echo 'set -euo pipefail'
    declare -p name checkout keys
    declare -f configure prepare_pktdrop
    # shellcheck disable=SC2016 # for the hook to expand
    echo 'configure "$1"; prepare_pktdrop "$1"'
} >"$work/hook"
chmod +x "$work/hook"
INITRD=No mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --customize-hook="$work/hook" "$suite" "$root" "$mirror" >&2
say "unpacked $suite"

release=$(ls "$root/lib/modules")
cp "$root/boot/vmlinuz-$release" "$box/vmlinuz"
make_initrd "$release"

truncate -s 6G "$work/disk"
mke2fs -q -t ext4 -m 0 -E lazy_itable_init=0,lazy_journal_init=0 -d "$root" "$work/disk"
qemu-img convert -c -O qcow2 "$work/disk" "$box/box.img"
say "made the disk"

echo '{"provider": "libvirt", "format": "qcow2", "virtual_size": 6}' >"$box/metadata.json"
cat >"$box/Vagrantfile" <<'END'
Vagrant.configure("2") do |config|
  config.vm.guest = :debian     # asking the guest takes a dozen logins
  config.ssh.insert_key = false # nobody else reaches a VM on a network without a way out
  config.vm.provider :libvirt do |libvirt|
    libvirt.kernel = File.expand_path("vmlinuz", __dir__)
    libvirt.initrd = File.expand_path("initrd.img", __dir__)
    libvirt.cmd_line = "root=/dev/vda rw console=ttyS0 net.ifnames=0 loglevel=4 random.trust_cpu=on"
    libvirt.management_network_mode = "none"
    libvirt.graphics_type = "none"
    libvirt.random model: "random"
  end
end
END
tar -C "$box" -czf "$output" .
say "$output: Linux $release, $(($(stat -c %s "$output") / 1000000)) MB"
