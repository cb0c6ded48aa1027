# A Debian with its own systemd as process 1, in namespaces: its own processes, mounts, network and control groups.
# Sourced by the tests; needs root.
# shellcheck shell=sh disable=SC2154

# Makes the file system of a machine in the directory, from a tar that is made once.
make_machine() { # DIRECTORY
    base="$work/base.tar"
    if ! [ -e "$base" ]; then
        need mmdebstrap mmdebstrap
        mmdebstrap --quiet --format=tar --variant=minbase \
            --include=systemd,systemd-sysv,dbus,nftables,iptables,iproute2,procps,libpcap0.8 \
            bookworm "$base.new"
        mv "$base.new" "$base"
    fi
    rm -rf "$1"
    mkdir -p "$1"
    # Device files are made at the start.
    tar -C "$1" --exclude='./dev/*' -xf "$base"
    : > "$1/etc/machine-id"
}

# Starts it; the variable `init` is its process 1, as seen from here.
start_machine() { # DIRECTORY
    machine_group="/sys/fs/cgroup/unified/millrace-$$"
    [ -e /sys/fs/cgroup/cgroup.procs ] && machine_group="/sys/fs/cgroup/millrace-$$"
    mkdir "$machine_group"
    # shellcheck disable=SC2016 # for the shell in the machine
    (
        # $$ would be the script's.
        sh -c 'echo $PPID' > "$machine_group/cgroup.procs"
        exec setsid timeout -k 5 600 unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child sh -eu -c '
            mount --make-rprivate /
            mount --bind "$1" "$1"
            cd "$1"
            mount -t proc proc proc
            mount -t sysfs -o ro sysfs sys
            mount -t cgroup2 cgroup2 sys/fs/cgroup
            mount -t tmpfs tmpfs run
            mount -t tmpfs tmpfs tmp
            mount -t tmpfs -o mode=755 tmpfs dev
            for name in null zero full random urandom tty; do
                touch "dev/$name"
                mount --bind "/dev/$name" "dev/$name"
            done
            mkdir dev/pts dev/shm old
            mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
            ln -s pts/ptmx dev/ptmx
            pivot_root . old
            umount -l old
            rmdir old
            exec env -i container=millrace-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
                /lib/systemd/systemd --system --log-target=journal
        ' machine "$1"
    ) > "$work/machine.log" 2>&1 &
    outer=$!
    for _ in $(seq 100); do
        sleep 0.3
        init=$(pgrep -P "$(pgrep -P "$outer" 2>/dev/null | head -1)" 2>/dev/null | head -1) || true
        [ -n "$init" ] || continue
        case $(inside systemctl is-system-running 2>/dev/null) in running | degraded) return 0 ;; esac
    done
    echo "the machine does not start: $(tail -3 "$work/machine.log")" >&2
    return 1
}

# Runs a command in it.
inside() { # COMMAND ...
    nsenter -t "$init" -m -p -n -u -i -C -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"
}

stop_machine() {
    [ -n "${outer:-}" ] || return 0
    kill -KILL "${init:-$outer}" 2>/dev/null || true
    wait "$outer" 2>/dev/null || true
    outer=""
    for _ in $(seq 20); do
        find "$machine_group" -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.2
    done
}
