#!/bin/sh
# The container image: it starts, and holds what the daemons start and load.
. "$(dirname "$0")/../common.sh"

need podman podman
need crun crun
# crun wants control groups of version 2 alone, which this machine may not have: they are shown to it so.
if [ -z "${MILLRACE_OWN_MOUNTS:-}" ]; then
    export MILLRACE_OWN_MOUNTS=1
    # shellcheck disable=SC2016 # for the inner shell
    exec unshare --mount sh -c 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec sh "$1"' own "$0"
fi
image="$out/millrace-$version-oci-amd64.tar"
store=$(mktemp -d)
engine() { podman --runtime crun --root "$store/root" --runroot "$store/run" --storage-driver vfs "$@"; }
clean() {
    engine system reset --force >/dev/null 2>&1 || true
    rm -rf "$store"
}
trap clean EXIT

id=$(engine pull -q "oci-archive:$image")
# Limits that no machine has to raise.
start() {
    engine run --rm --network none --cgroups disabled --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 \
        --cap-drop ALL --read-only "$@"
}
passed=0
expect() { # WORDS COMMAND ...
    words=$1
    shift
    said=$("$@" 2>&1) || { echo "FAILED: $*: $said" >&2; exit 1; }
    case $said in *"$words"*) ;; *) echo "FAILED: $*: $said" >&2; exit 1 ;; esac
    echo "ok: $(echo "$said" | head -1)"
    passed=$((passed + 1))
}
for program in $programs; do expect "$program $version" start "$id" "/usr/bin/$program" --version; done
expect nftables start "$id" nft --version
expect nf_tables start "$id" iptables -V
expect "the filter 'tcp port 80'" start "$id" /usr/bin/millrace-copier check-config -x 80-198.18.2.20:8080 -s 198.18.2.20 --insecure \
    -i lo -F "tcp port 80"
expect "2 checks: 2 ok" start --cap-add NET_ADMIN --cap-add NET_RAW "$id" \
    /usr/bin/millrace-router-agent --insecure check --only privileges,tools
echo "$passed passed, 0 failed"
