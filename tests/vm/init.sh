#!/bin/busybox sh
# The first process of the guest: loads the modules, puts a tmpfs over the host's root, and runs `run.sh` of the job in it.
B=/bin/busybox
$B mkdir -p /proc /sys /dev /host /over /new
$B mount -t proc proc /proc; $B mount -t sysfs sysfs /sys; $B mount -t devtmpfs dev /dev
for module in $($B cat /modules/order); do $B insmod "/modules/$module" || echo "insmod $module failed"; done
$B mount -t virtiofs -o ro host /host || { echo "the host's root cannot be mounted"; $B poweroff -f; }
$B mount -t tmpfs -o size=80% tmpfs /over; $B mkdir /over/upper /over/work
$B mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work overlay /new
$B mount -t proc proc /new/proc; $B mount -t sysfs sysfs /new/sys; $B mount -t devtmpfs dev /new/dev
$B mkdir -p /new/dev/pts /new/dev/shm /new/lib/modules
$B mount -t devpts devpts /new/dev/pts; $B mount -t tmpfs tmpfs /new/dev/shm; $B mount -t tmpfs tmpfs /new/run
$B mkdir /new/run/job; $B mount -t virtiofs job /new/run/job
$B mount -o bind "/host$($B cat /kernel)/lib/modules" /new/lib/modules
$B cp /bin/busybox /new/run/busybox; $B ln -s busybox /new/run/modprobe
$B cat > /new/run/main <<'MAIN'
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run HOME=/root LC_ALL=C.UTF-8
cd /run/job && /bin/sh run.sh >output 2>&1; echo $? >status
/run/busybox sync; /run/busybox poweroff -f
MAIN
exec $B switch_root /new /run/busybox sh /run/main
