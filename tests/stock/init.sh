#!/bin/sh
# The guest's first process: this machine's files, read-only under a layer in memory, become its root.
b=/bin/busybox
$b mkdir -p /proc /sys /dev /low /over /root
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
while read -r module; do $b insmod "/modules/$module"; done < /modules/order
share=trans=virtio,version=9p2000.L,msize=524288
$b mount -t 9p -o "ro,cache=loose,$share" root /low
$b mount -t tmpfs tmpfs /over
$b mkdir /over/upper /over/work
$b mount -t overlay -o lowerdir=/low,upperdir=/over/upper,workdir=/over/work overlay /root
$b mkdir -p /root/dev/pts /root/dev/shm /root/proc /root/sys /root/run /root/told
for place in proc sys dev; do $b mount --move /$place /root/$place; done
$b mount -t 9p -o "cache=none,$share" told /root/told
exec $b switch_root /root /bin/sh /told/inside.sh
