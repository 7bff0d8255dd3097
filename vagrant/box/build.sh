#!/bin/bash
# Builds the lab's box from Debian's packages alone: a disk image, its kernel and initramfs, and the key that opens it.
#   build.sh SUITE OUT          SUITE: bookworm or trixie; OUT: a directory, made anew
# Mounts nothing, writes to no device of this machine and uses no loop device; needs root for debootstrap.
# Needs: debootstrap qemu-utils e2fsprogs fdisk grub-pc-bin grub-common cpio lz4 xz-utils openssh-client
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
suite=${1:?SUITE} out=$(realpath -m "${2:?OUT}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
kernel=${LAB_KERNEL:-linux-image-cloud-amd64}  # a stock kernel without drivers for hardware that no machine here has
size_mib=3072  # three times what is in it
root=$out/root log=$out/build.log
base=ca-certificates,conntrack,dbus,kmod,less,openssh-server,rsync,sudo,systemd,systemd-sysv,udev

say() { printf '%5ds  %s\n' "$SECONDS" "$1"; }
fail() { echo "build.sh: $1" >&2; tail -n 20 "$log" >&2; exit 1; }

install_base() {
    say "debootstrap $suite"
    debootstrap --variant=minbase --include="$base" "$suite" "$root" "$mirror" >"$log" 2>&1 || fail "debootstrap failed"
}

set_up() {
    say "packages of all roles, the kernel, users"
    cp -r --no-preserve=ownership "$here/files/." "$root/"
    chmod 440 "$root/etc/sudoers.d/vagrant"
    ssh-keygen -q -t ed25519 -N '' -C lab -f "$out/key"
    cp "$out/key.pub" "$here/setup.sh" "$root/"
    local packages
    packages=$(sed -e '/^#/d' -e 's/^[a-z]*://' "$here/../provision/packages.txt" | tr '\n' ' ')
    chroot "$root" env PACKAGES="$packages $kernel busybox-static" bash /setup.sh >>"$log" 2>&1 || fail "the set-up failed"
    rm "$root/setup.sh" "$root/key.pub"
}

# A dozen modules and one script: initramfs-tools' would start udev, which takes ten seconds of an emulated processor.
make_initramfs() {
    say "initramfs"
    local tree=$out/initramfs module path
    mkdir -p "$tree"/{bin,dev,proc,sys,root,modules}
    cp "$root/bin/busybox" "$tree/bin/"
    install -m 755 "$here/init" "$tree/init"
    find "$root/lib/modules" -name '*.ko.xz' -print0 | xargs -0 -r unxz  # once here, not at every boot
    chroot "$root" depmod "$version"
    for module in virtio_pci virtio_blk virtio_net virtio_rng ext4; do
        chroot "$root" modprobe --set-version "$version" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r path; do
        cp "$root/$path" "$tree/modules/"
        basename "$path" >>"$tree/modules/order"
    done
    (cd "$tree" && find . | cpio --create --format=newc --quiet | lz4 -l -9 -q) >"$root/boot/initrd.img-$version"
}

configure_boot() {
    # no_timer_check: an emulated timer is late. mitigations: of a processor that does not exist.
    echo "root=/dev/vda1 ro console=ttyS0,115200 net.ifnames=0 mitigations=off fsck.mode=skip no_timer_check apparmor=0" \
        "audit=0 systemd.show_status=no quiet" >"$out/cmdline"
    mkdir -p "$root/boot/grub"
    printf '%s\n' 'set timeout=0' "linux /boot/vmlinuz-$version $(cat "$out/cmdline")" "initrd /boot/initrd.img-$version" boot \
        >"$root/boot/grub/grub.cfg"
    cp "$root/boot/vmlinuz-$version" "$out/vmlinuz"
    cp "$root/boot/initrd.img-$version" "$out/initrd.img"
}

# boot.img in the MBR, core.img right behind it: the sectors that grub-mkimage writes into it by default are these, so
# that no installer is needed that reads a block device. GRUB 2.06 reads no newer ext4 than this.
make_image() {
    say "disk image"
    local raw=$out/box.raw
    truncate -s "${size_mib}M" "$raw"
    echo '2048,,L,*' | sfdisk -q "$raw"
    mke2fs -q -F -t ext4 -L root -O '^metadata_csum_seed,^orphan_file' -E offset=1048576 -d "$root" "$raw" "$((size_mib - 2))M"
    grub-mkimage -O i386-pc -o "$out/core.img" -p '(hd0,msdos1)/boot/grub' biosdisk part_msdos ext2 normal linux
    dd if=/usr/lib/grub/i386-pc/boot.img of="$raw" bs=440 count=1 conv=notrunc status=none
    dd if="$out/core.img" of="$raw" bs=512 seek=1 conv=notrunc status=none
    qemu-img convert -f raw -O qcow2 "$raw" "$out/box.img"
    echo '{"provider": "libvirt", "format": "qcow2", "virtual_size": '$((size_mib / 1024))'}' >"$out/metadata.json"
}

rm -rf "$out"
mkdir -p "$out"
install_base
set_up
version=$(basename "$root"/lib/modules/*)
make_initramfs
configure_boot
make_image
rm -rf "$root" "$out"/{initramfs,box.raw,core.img}
say "$out: Debian $suite, Linux $version"
