#!/bin/sh
# Whether the units are right and as hardened as they say: 3.0 or less of `systemd-analyze security` each.
. "$(dirname "$0")/common.sh"

if ! command -v systemd-analyze >/dev/null 2>&1; then
    echo "***" >&2; echo "*** UNITS NOT LOOKED AT: please install systemd" >&2; echo "***" >&2
    [ -z "${CI:-}" ]
    exit
fi
for unit in "$root"/deploy/systemd/*.service; do
    said=$(systemd-analyze security --no-pager --offline=true --threshold=30 "$unit") || {
        echo "$said" >&2
        echo "units.sh: $unit is exposed more than 3.0" >&2
        exit 1
    }
    echo "$said" | sed -n 's/.*Overall exposure level for //p'
done
