#!/bin/sh
# In the guest, as its only process: runs the test programs of a directory, or those of their tests whose names contain
# a word, and leaves their output and exit status. Arguments: DIRECTORY [WORD].
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/run/tmp CI=true MILLRACE_VM=1
mkdir -p /run/tmp /run/netns /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
busybox hostname guest
ip link set lo up
# Emulated processors fall behind: a full backlog makes veth drop, and Linux forgets a half-open connection whose
# SYN-ACK it could not send again (net/ipv4/inet_connection_sock.c, reqsk_timer_handler).
echo 100000 >/proc/sys/net/core/netdev_max_backlog
results=/run/results
cd "$1" || exit
{
    status=0
    for test in ./*.test; do
        "$test" --test-threads=1 --nocapture ${2:+"$2"} || status=1
    done
    # What failed tests left: a passed one removes its own.
    cp -r /run/tmp "$results/left" 2>/dev/null
    dmesg | grep -E 'BUG:|WARNING:|Oops|Unknown symbol' >"$results/kernel" && cat "$results/kernel"
    echo "$status" >"$results/status"
} >"$results/log" 2>&1
sync
exec busybox poweroff -f
