#!/bin/sh
# Installs the programs that the lab and the demo use, and with --tests those of the tests. Says nothing when all are there.
set -eu

missing=""
need() { # PROGRAM PACKAGE
    for directory in $(echo "$PATH:/usr/local/sbin:/usr/sbin:/sbin" | tr ':' ' '); do
        [ -x "$directory/$1" ] && return 0
    done
    missing="$missing $2"
}

need ip iproute2
need ethtool ethtool
need nft nftables
need iptables iptables
need nginx nginx-light
need redis-server redis-server
need redis-cli redis-tools
need redis-benchmark redis-tools
need wrk wrk
need tcpdump tcpdump
need curl curl
need jq jq
need unshare util-linux
# -F expressions are compiled by libpcap, which is loaded when one is given.
/sbin/ldconfig -p 2>/dev/null | grep -q 'libpcap\.so\.' || missing="$missing libpcap0.8"

if [ "${1:-}" = --tests ]; then
    need mariadbd mariadb-server-core
    need mariadb mariadb-client-core
    need sysbench sysbench
    need prometheus prometheus
    /usr/bin/python3 -c 'import pymysql' 2>/dev/null || missing="$missing python3-pymysql"
    /usr/bin/python3 -c 'import cryptography' 2>/dev/null || missing="$missing python3-cryptography"
fi

[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1; then
    as_root="sudo"
else
    echo "install-deps: please install as root: apt-get install$missing" >&2
    exit 1
fi
command -v apt-get >/dev/null 2>&1 || {
    echo "install-deps: there is no apt-get here; please install:$missing" >&2
    exit 1
}

# Debian starts the services of what it installs. The lab runs its own copies inside its namespaces, and nothing
# may be left listening on the machine: policy-rc.d (invoke-rc.d(8)) forbids the start while this script runs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    # shellcheck disable=SC2064 # expanded now on purpose
    trap "$as_root rm -f $policy" EXIT INT TERM
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi
echo "install-deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# Package names have no blanks: they are to be split.
# shellcheck disable=SC2086
install() { $as_root apt-get install -y -q --no-install-recommends $missing >/dev/null; }
install || { $as_root apt-get update -q >/dev/null && install; }
# Not at the next boot either.
if command -v systemctl >/dev/null 2>&1; then
    for service in nginx redis-server; do
        case "$missing" in *"$service"*) $as_root systemctl disable "$service" >/dev/null 2>&1 || true ;; esac
    done
fi
