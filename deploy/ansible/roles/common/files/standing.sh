#!/bin/sh
# How the daemon of a unit stands: "stopped", "stale" where the program or a file that it has read is newer than what
# runs, else "current". So a roll-out that broke off between a change and the restart is completed by the next one.
#
#   standing.sh UNIT FILE ...
set -eu
unit=$1
shift
property() { systemctl show --value -p "$1" "$unit"; }

if [ "$(property ActiveState)" != active ]; then
    echo stopped
    exit
fi
case $(readlink "/proc/$(property MainPID)/exe") in
*' (deleted)')
    echo stale
    exit
    ;;
esac
# A reload changes the state, too.
since=$(date -d "$(property StateChangeTimestamp)" +%s)
for file in "$@"; do
    if [ -e "$file" ] && [ "$(stat -c %Z "$file")" -gt "$since" ]; then
        echo stale
        exit
    fi
done
echo current
