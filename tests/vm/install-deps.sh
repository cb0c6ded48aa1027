#!/bin/sh
# Installs the programs that tests/vm uses. Says nothing when all are there.
set -eu

missing=""
need() { # PROGRAM PACKAGE
    for directory in $(echo "$PATH:/usr/local/sbin:/usr/sbin:/sbin" | tr ':' ' '); do
        [ -x "$directory/$1" ] && return 0
    done
    missing="$missing $2"
}

need qemu-system-x86_64 qemu-system-x86
need busybox busybox-static
need keepalived keepalived
need ipvsadm ipvsadm
need depmod kmod
need strip binutils
need xz xz-utils
need iptables iptables

[ -n "$missing" ] || exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || {
    echo "tests/vm: please install as root: apt-get install$missing" >&2
    exit 1
}

# As in lab/install-deps.sh: nothing of what is installed may start by itself.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    # shellcheck disable=SC2064 # expanded now on purpose
    trap "rm -f $policy" EXIT INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
echo "tests/vm: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# Package names have no blanks: they are to be split.
# shellcheck disable=SC2086
install() { apt-get install -y -q --no-install-recommends $missing >/dev/null; }
install || { apt-get update -q >/dev/null && install; }
for service in keepalived ipvsadm; do
    case "$missing" in *"$service"*) systemctl disable "$service" >/dev/null 2>&1 || true ;; esac
done
