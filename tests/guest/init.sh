#!/bin/busybox sh
# The guest's first process. What the checks say goes to the second serial port, what the kernel says to the first.
export PATH=/usr/bin LC_ALL=C.UTF-8 TERM=dumb PYTHONPATH=/opt/site PYTHONDONTWRITEBYTECODE=1
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /tmp /run
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t devtmpfs dev /dev
$bb mount -t tmpfs tmp /tmp
$bb mount -t tmpfs run /run
$bb stty -F /dev/ttyS1 raw -echo
exec 7<>/dev/ttyS1
[ -e /vmclock.ko ] && $bb insmod /vmclock.ko
failed=0
for checks in $($bb cat /checks); do
  python3.11 -m "$checks" >&7 2>&1 </dev/null || failed=1
done
echo "@end $failed" >&7
$bb dmesg | $bb tail -n 30
$bb sleep 1
$bb poweroff -f
