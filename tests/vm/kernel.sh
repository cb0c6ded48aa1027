# Part of run.sh: the guest's kernel and initramfs, from Debian's packages.
# shellcheck shell=sh

# What the guest needs beyond what is built in. The order, dependencies included, is modprobe's.
modules="virtio_pci virtio_console 9pnet_virtio 9p overlay
    crc32c_generic ip_vs ip_vs_rr ip_vs_wlc ip_vs_sh
    veth bridge dummy sch_netem inet_diag tcp_diag
    nf_tables nft_objref nft_ct nft_log nft_limit nft_fwd_netdev nft_numgen nft_hash nft_compat
    nfnetlink_queue xt_NFQUEUE xt_multiport xt_tcpudp xt_comment"

# Unpacks the newest kernel package into a directory, and sets: version, tree, kernel (an uncompressed image, which
# boots faster here).
fetch_kernel() { # DIRECTORY
    package=$(apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image-/ { print $2; exit }')
    [ -n "$package" ] || {
        echo "vm: apt knows no package linux-image-amd64; run apt-get update" >&2
        exit 1
    }
    version=${package#linux-image-}
    tree=$1/$package
    kernel=$1/vmlinux-$version
    if [ ! -d "$tree/lib/modules/$version" ]; then
        echo "vm: fetching $package"
        (cd "$1" && rm -f "$package"_*.deb && apt-get download -q "$package" >/dev/null)
        rm -rf "$tree.new"
        dpkg-deb -x "$1/$package"_*.deb "$tree.new"
        rm -f "$1/$package"_*.deb
        depmod -b "$tree.new" "$version"
        mv "$tree.new" "$tree"
    fi
    [ -s "$kernel" ] || unpack_kernel "$tree/boot/vmlinuz-$version" "$kernel"
}

# A bzImage holds an xz stream (here: Debian's choice), followed by other data that xz complains about.
unpack_kernel() { # BZIMAGE VMLINUX
    start=$(LC_ALL=C grep -abo "$(printf '\3757zXZ')" "$1" | head -n 1 | cut -d: -f1)
    tail -c "+$((start + 1))" "$1" | xz -dcq --single-stream >"$2.new" 2>/dev/null || true
    [ "$(head -c 4 "$2.new" | tail -c 3)" = ELF ] || {
        echo "vm: no xz-compressed kernel in $1" >&2
        exit 1
    }
    mv "$2.new" "$2"
}

make_initramfs() { # FILE INIT
    root=$1.d
    rm -rf "$root"
    mkdir -p "$root/bin" "$root/dev" "$root/modules"
    cp "$(command -v busybox)" "$root/bin/busybox"
    cp "$2" "$root/init"
    chmod 755 "$root/init"
    number=100
    for module in $modules; do
        modprobe -d "$tree" -S "$version" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
        # libcrc32c asks for an algorithm that nothing loads by itself: the file names give the order.
        cp "$file" "$root/modules/$number-$(basename "$file")"
        number=$((number + 1))
    done
    (cd "$root" && find . | LC_ALL=C sort | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$1"
    rm -rf "$root"
}
