#!/bin/sh
# The Debian package in a Debian with its own systemd: installed, run, upgraded, removed and purged.
. "$(dirname "$0")/../common.sh"
. "$(dirname "$0")/machine.sh"

[ "$(id -u)" = 0 ] || { echo "installed.sh: needs root, for namespaces" >&2; exit 1; }
need nsenter util-linux
work="$target_dir/packages-test"
mkdir -p "$work"
machine="$work/machine"
deb="$out/millrace_${version}_amd64.deb"
trap stop_machine EXIT

passed=0
ok() { echo "ok: $*"; passed=$((passed + 1)); }
fail() {
    echo "FAILED: $*" >&2
    inside journalctl --no-pager -n 30 -u 'millrace-*' >&2 || true
    exit 1
}

# Files of the machine that matter: what caches and logs hold changes by itself.
listed() { inside find /etc /usr /var /run/millrace /opt /srv -xdev -not -path '/var/log/*' -not -path '/var/cache/*' \
    -not -path '/var/lib/dpkg/*' -not -path '/var/lib/systemd/*' -not -path '/etc/*-' -not -name '.pwd.lock' 2>/dev/null | sort; }
is_active() { inside systemctl is-active --quiet "$1"; }
property() { inside systemctl show --value -p "$2" "$1"; }
# Waits until a command succeeds.
soon() { # WHAT COMMAND ...
    what=$1
    shift
    for _ in $(seq 100); do
        if "$@" >/dev/null 2>&1; then ok "$what"; return 0; fi
        sleep 0.2
    done
    fail "$what"
}

make_machine "$machine"
mkdir -p "$machine/root/debs"
cp "$deb" "$machine/root/debs/old.deb"

# --- In a chroot, as images of hosts are made: without /proc and without systemd at work.
touch "$machine/dev/null"
chroot "$machine" dpkg -i /root/debs/old.deb >/dev/null 2>&1 || fail "dpkg -i in a chroot"
[ "$(stat -c %a "$machine/etc/millrace/tls")" = 750 ] || fail "/etc/millrace/tls in a chroot"
chroot "$machine" dpkg -P millrace >/dev/null 2>&1 || fail "dpkg -P in a chroot"
rm "$machine/dev/null"
ok "it installs and purges in a chroot"

start_machine "$machine"
listed > "$work/before"
inside cat /etc/passwd /etc/group > "$work/users-before"

# --- Installed, it starts nothing.
inside dpkg -i /root/debs/old.deb >/dev/null || fail "dpkg -i"
for program in $programs; do
    inside "$program" --version | grep -q "$version" || fail "$program --version"
done
ok "the three programs run"
[ -z "$(inside systemctl --plain --no-legend list-units 'millrace-*')" ] || fail "something was started"
[ -z "$(inside sh -c 'ls /etc/systemd/system/*.wants 2>/dev/null | grep millrace || true')" ] || fail "something was enabled"
ok "nothing is started or enabled"
[ "$(inside stat -c '%U:%G %a' /etc/millrace/tls)" = "root:millrace 750" ] || fail "/etc/millrace/tls"
ok "the user and the directory of keys are there"
inside systemd-analyze verify --man=no /usr/lib/systemd/system/millrace-interceptor.service \
    /usr/lib/systemd/system/millrace-router-agent.service || fail "systemd-analyze verify"
ok "systemd finds nothing wrong with the units"

# --- Run under the units, with their user and capabilities, on a network of their own.
inside sh -eu -c '
    ip link set lo up
    ip link add eth0 type veth peer name peer0
    ip address add 198.18.2.10/24 dev eth0
    # As a real server has its VIP: arp_ignore and arp_announce are then set by the agent.
    ip address add 198.18.2.20/32 dev lo
    ip link set eth0 up
    ip link set peer0 up
    cat > /etc/millrace/router-agent.toml <<END
insecure = true
bind = "127.0.0.1"
allow = "198.18.2.20:8080"
manage-sysctl = true
END
    printf "insecure = true\nbind = \"127.0.0.1\"\n" > /etc/millrace/interceptor.toml
    cat > /etc/millrace/copier-one.toml <<END
services = "198.18.2.10:80-198.18.2.20:8080"
interceptors = "127.0.0.1"
router-agent = "127.0.0.1"
insecure = true
devices = "eth0"
report = "/var/lib/millrace/one.json"
skip-checks = "all"
capture-nice = -5
END
    # As docs/systemd.md says for capture-nice.
    mkdir -p /etc/systemd/system/millrace-copier@one.service.d
    printf "[Service]\n%s=CAP_SYS_NICE\n%s=CAP_SYS_NICE\nSystemCallFilter=setpriority\n" \
        AmbientCapabilities CapabilityBoundingSet \
        > /etc/systemd/system/millrace-copier@one.service.d/nice.conf
    systemctl daemon-reload
'
inside systemctl enable -q --now millrace-router-agent millrace-interceptor millrace-copier@one || fail "enable --now"
for unit in millrace-router-agent millrace-interceptor millrace-copier@one; do
    is_active "$unit" || fail "$unit is not active"
    pid=$(property "$unit" MainPID)
    [ "$(inside ps -o user= -p "$pid")" = millrace ] || fail "$unit runs as $(inside ps -o user= -p "$pid")"
    [ -n "$(property "$unit" StatusText)" ] || sleep 2
    echo "    $unit: $(property "$unit" StatusText)"
    [ -n "$(property "$unit" StatusText)" ] || fail "$unit tells no state"
    inside journalctl --no-pager -u "$unit" | grep 'privileges given up' | grep -q 'capabilities CAP_NET_' || fail "$unit: privileges"
    echo "    $(inside journalctl --no-pager -o cat -u "$unit" | grep -o 'user [0-9].*')"
    ok "$unit is ready, as user millrace with its capabilities alone, and says how it stands"
done
inside ps -L -o ni=,comm= -p "$(property millrace-copier@one MainPID)" | grep -q -- '-5 capture' || fail "capture-nice"
ok "capture-nice takes the lines of docs/systemd.md, and no more"
soon "the router-agent diverts for the copier" \
    inside sh -c 'millrace-router-agent --config /etc/millrace/router-agent.toml show | grep -q "198.18.2.20:8080"'
inside sh -c 'millrace-router-agent --config /etc/millrace/router-agent.toml show' | sed 's/^/    /'
inside nft list tables | grep -q millrace || fail "the floor is not there: nft does not run under the unit"
ok "nft runs under the unit"
[ "$(inside cat /proc/sys/net/ipv4/conf/eth0/arp_ignore)" = 1 ] || fail "manage-sysctl sets nothing under the unit"
ok "kernel settings of the network are set under the unit"
soon "STATUS follows the headline" \
    inside sh -c 'systemctl show --value -p StatusText millrace-router-agent | grep -q "diverting.*198.18.2.20:8080"'
inside millrace-copier ctl pause >/dev/null || fail "ctl as root"
inside millrace-copier ctl resume >/dev/null
ok "root commands the copier of user millrace"

# --- Reloaded, restarted when it hangs, not restarted when its configuration is wrong.
for unit in millrace-router-agent millrace-interceptor millrace-copier@one; do
    inside systemctl reload "$unit" || fail "reload $unit"
    soon "$unit is reloaded" is_active "$unit"
done
inside sh -c 'mkdir -p /run/systemd/system/millrace-interceptor.service.d
    printf "[Service]\nWatchdogSec=3\nTimeoutStopSec=4\n" > /run/systemd/system/millrace-interceptor.service.d/quick.conf'
inside systemctl daemon-reload
inside systemctl restart millrace-interceptor
sleep 7
[ "$(property millrace-interceptor NRestarts)" = 0 ] || fail "a daemon that lives is taken for dead"
ok "a daemon that lives is not taken for dead"
pid=$(property millrace-interceptor MainPID)
inside kill -STOP "$pid"
soon "a daemon that hangs is ended and started again" \
    inside sh -c "[ \$(systemctl show --value -p NRestarts millrace-interceptor) -ge 1 ] && systemctl is-active millrace-interceptor"
inside sh -c 'echo nonsense = 1 > /etc/millrace/copier-wrong.toml'
inside systemctl start millrace-copier@wrong 2>/dev/null && fail "a wrong configuration starts"
sleep 6
[ "$(property millrace-copier@wrong NRestarts)" = 0 ] || fail "a wrong configuration is tried again"
[ "$(property millrace-copier@wrong ExecMainStatus)" = 64 ] || fail "exit code $(property millrace-copier@wrong ExecMainStatus)"
ok "a wrong configuration ends with 64, and is not tried again"
inside rm /etc/millrace/copier-wrong.toml
inside systemctl reset-failed millrace-copier@wrong

# --- Upgraded, it keeps the configuration, and what runs goes on.
rm -rf "$work/newer"
dpkg-deb -R "$deb" "$work/newer"
sed -i "s/^Version: .*/Version: $version+next/" "$work/newer/DEBIAN/control"
dpkg-deb --root-owner-group -Zgzip -b "$work/newer" "$machine/root/debs/new.deb" >/dev/null
pid=$(property millrace-copier@one MainPID)
inside sh -c 'sha256sum /etc/millrace/*.toml' > "$work/config-before"
inside dpkg -i /root/debs/new.deb | grep -q 'keep to version' || fail "the upgrade does not say that daemons keep their version"
inside sh -c 'sha256sum /etc/millrace/*.toml' | cmp - "$work/config-before" || fail "the upgrade changed the configuration"
[ "$(property millrace-copier@one MainPID)" = "$pid" ] || fail "the upgrade restarted the copier"
ok "an upgrade keeps the configuration, and restarts nothing"

# --- Stopped, it drains and reports.
inside systemctl stop millrace-copier@one || fail "stop"
[ "$(property millrace-copier@one Result)" = success ] || fail "the copier ended with $(property millrace-copier@one Result)"
inside grep -q '"captured"' /var/lib/millrace/one.json || fail "no report"
ok "the copier ends in order, and leaves its report"
inside systemctl start millrace-copier@one

# --- Removed, it stops everything and gives back the routes; purged, nothing is left.
inside dpkg -r millrace >/dev/null || fail "dpkg -r"
[ -z "$(inside sh -c 'ip rule list | grep -v -e local -e main -e default; ip link | grep millrace0; nft list tables' || true)" ] \
    || fail "rules are left: $(inside sh -c 'ip rule list; ip link; nft list tables')"
[ "$(inside cat /proc/sys/net/ipv4/conf/eth0/arp_ignore)" = 0 ] || fail "kernel settings are left"
ok "removed, nothing is diverted any more"
inside test -e /etc/millrace/router-agent.toml || fail "removal took the configuration"
inside dpkg -P millrace >/dev/null 2>&1 || fail "dpkg -P"
listed > "$work/after"
diff "$work/before" "$work/after" || fail "files are left, or gone"
inside cat /etc/passwd /etc/group | diff "$work/users-before" - || fail "users are left"
ok "purged, no file and no user is left"

stop_machine
rm -rf "$machine"
echo "$passed passed, 0 failed"
