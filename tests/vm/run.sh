#!/bin/sh
# Runs the tests that need a kernel with IPVS in a virtual machine: Debian's own kernel, emulated (no KVM), on the
# host's files, read-only. Usage: run.sh DIRECTORY, where DIRECTORY holds the programs and the test programs to run.
# What they wrote ends up in target/vm/results; the exit status is theirs. VM_TEST names the tests to run, by a part of
# their names: all of them, if it is empty. See README.md.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=${VM_WORK:-$here/../../target/vm}
# Seconds that the whole machine may take.
limit=${VM_SECONDS:-1800}
programs=$(cd "$1" && pwd)

mkdir -p "$work/cache" "$work/results"
work=$(cd "$work" && pwd)
rm -rf "$work/results"
mkdir -p "$work/results"

. "$here/kernel.sh"
fetch_kernel "$work/cache"
make_initramfs "$work/initramfs.gz" "$here/init"

# 9p serves the guest files of this root; a tag has no more than 31 letters.
echo "vm: booting Linux $version, no longer than $limit s; its console: $work/console.log"
set -- -accel tcg,thread=multi -cpu Nehalem -smp 2 -m 3072 \
    -nodefaults -no-user-config -display none -no-reboot -nic none \
    -kernel "$kernel" -initrd "$work/initramfs.gz" \
    -append "console=hvc0 quiet panic=-1 norandmaps mitigations=off vm.script=$here/guest.sh vm.programs=$programs vm.test=${VM_TEST:-}" \
    -device virtio-serial-pci -chardev "file,id=console,path=$work/console.log" -device virtconsole,chardev=console \
    -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap \
    -device virtio-9p-pci,fsdev=root,mount_tag=root \
    -fsdev "local,id=results,path=$work/results,security_model=none" \
    -device virtio-9p-pci,fsdev=results,mount_tag=results
started=$(date +%s)
timeout --kill-after=5 "$limit" qemu-system-x86_64 "$@" || {
    echo "vm: the machine did not end by itself within $limit s, or could not start:" >&2
    tail -n 40 "$work/console.log" >&2 || true
    exit 1
}
cat "$work/results/log" 2>/dev/null || true
[ -s "$work/results/status" ] || {
    echo "vm: no result; the end of the console:" >&2
    tail -n 40 "$work/console.log" >&2
    exit 1
}
status=$(cat "$work/results/status")
echo "vm: $(($(date +%s) - started)) s, exit status $status"
exit "$status"
