#!/bin/sh
# Makes the Debian package from the programs that programs.sh has built.
. "$(dirname "$0")/common.sh"

here="$root/deploy/packages"
need dpkg-deb dpkg
need dpkg-shlibdeps dpkg-dev
# Whoever builds a package answers for it.
maintainer=${MAINTAINER:-Millrace maintainers <maintainers@millrace.example>}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage="$work/stage"
sh "$here/stage.sh" x86_64-unknown-linux-gnu "$stage"

doc="$stage/usr/share/doc/millrace"
date=$(date -u -R -d "@$SOURCE_DATE_EPOCH")
cat > "$work/changelog" <<END
millrace ($version) unstable; urgency=medium

  * What is new stands in /usr/share/doc/millrace/NEWS.md.gz.

 -- $maintainer  $date
END
gzip -9nc "$work/changelog" > "$doc/changelog.gz"
gzip -9nc "$root/CHANGELOG.md" > "$doc/NEWS.md.gz"
install -m 644 "$here/debian/copyright" "$doc/copyright"
install -D -m 644 "$here/debian/lintian-overrides" "$stage/usr/share/lintian/overrides/millrace"

# dpkg-shlibdeps wants a source package around it.
mkdir "$work/debian"
printf 'Source: millrace\n\nPackage: millrace\nArchitecture: amd64\n' > "$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O "$stage"/usr/bin/* 2>/dev/null | sed -n 's/^shlibs:Depends=//p')
[ -n "$depends" ] || { echo "deb.sh: dpkg-shlibdeps found no libraries" >&2; exit 1; }

mkdir "$stage/DEBIAN"
for script in postinst prerm postrm; do install -m 755 "$here/debian/$script" "$stage/DEBIAN/$script"; done
size=$(du -k -s --apparent-size --exclude=DEBIAN "$stage" | cut -f1)
sed -e "s|@VERSION@|$version|; s|@MAINTAINER@|$maintainer|; s|@DEPENDS@|$depends|; s|@SIZE@|$size|" \
    "$here/debian/control" > "$stage/DEBIAN/control"
(cd "$stage" && find usr -type f -print0 | sort -z | xargs -0 md5sum) > "$stage/DEBIAN/md5sums"
chmod 644 "$stage/DEBIAN/control" "$stage/DEBIAN/md5sums"
find "$stage" -type d -exec chmod 755 {} +
find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

package="$out/millrace_${version}_amd64.deb"
dpkg-deb --root-owner-group -Zxz -b "$stage" "$package" >/dev/null
echo "$package"
