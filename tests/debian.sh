# Fetching from Debian's archive what this system has not installed. To be sourced.
#
# `archive_of DIRECTORY KIND SUITE` chooses packages (deb) or source packages (deb-src) of a suite; DIRECTORY is for the
# lists. Then `archive COMMAND...` is apt-get there. The system's own package lists are left alone.
#
# shellcheck shell=sh disable=SC2016 # for apt-get

archive_of() {
    # The mirror that this system uses already, unless another is named.
    mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1)}
    [ -n "$mirror" ] || { echo "$0: no mirror of Debian is known here; name one in DEBIAN_MIRROR" >&2; return 1; }
    mkdir -p "$1/lists/partial" "$1/archives/partial" && lists=$(cd "$1" && pwd) || return 1
    echo "$2 [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $3 main" > "$lists/sources.list"
    archive update >&2
}

archive() {
    apt-get -q -o Dir::Etc::sourcelist="$lists/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$lists/lists" -o Dir::Cache::archives="$lists/archives" \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root "$@"
}
