#!/bin/sh
# Makes the container image from the Debian package that deb.sh has made: see image.py.
. "$(dirname "$0")/common.sh"

need python3 python3
need nft nftables
need iptables iptables
ldconfig=$(PATH="$PATH:/usr/sbin:/sbin" command -v ldconfig)
"$ldconfig" -p | grep -q 'libpcap\.so\.' || need libpcap.so libpcap0.8
python3 "$root/deploy/packages/image.py" "$out/millrace_${version}_amd64.deb" "$version" \
    "$out/millrace-$version-oci-amd64.tar"
