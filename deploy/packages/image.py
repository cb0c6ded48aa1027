#!/usr/bin/env python3
"""Makes a container image (OCI image layout, in a tar) from the Debian package, without pulling anything.

It holds two layers: the programs of this host's Debian that Millrace starts or loads (nft, iptables, libpcap) with the
libraries that they and the programs need; and the programs themselves. The same inputs give the same bytes.

    image.py PACKAGE.deb VERSION IMAGE.tar
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile

EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
PROGRAMS = ["millrace-copier", "millrace-interceptor", "millrace-router-agent"]
# What they start: nft for the floor of the router-agent, iptables with --mode nfqueue (its own name matters to it).
TOOLS = {"/usr/sbin/nft": "nft", "/usr/sbin/xtables-nft-multi": "xtables-nft-multi"}
LINKS = {"/usr/sbin/iptables": "xtables-nft-multi", "/usr/sbin/ip6tables": "xtables-nft-multi"}
PLUGINS = ["libxt_NFQUEUE.so", "libxt_comment.so", "libxt_mark.so", "libxt_standard.so", "libxt_tcp.so",
           "libxt_multiport.so", "libxt_conntrack.so"]
FILES = {
    "etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nmillrace:x:999:999:Millrace daemons:/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nmillrace:x:999:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
DIRECTORIES = {"tmp": 0o1777, "run/millrace": 0o755, "var/lib/millrace": 0o755, "etc/millrace": 0o755, "proc": 0o755,
               "sys": 0o755, "dev": 0o755}


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Layer:
    """A tar whose bytes follow from what was put into it alone."""

    def __init__(self):
        self.entries = {}

    def file(self, path, data, mode=0o644):
        self.parents(path)
        self.entries[path.strip("/")] = (tarfile.REGTYPE, mode, data, "")

    def link(self, path, to):
        self.parents(path)
        self.entries[path.strip("/")] = (tarfile.SYMTYPE, 0o777, b"", to)

    def directory(self, path, mode=0o755):
        self.parents(path)
        self.entries[path.strip("/")] = (tarfile.DIRTYPE, mode, b"", "")

    def parents(self, path):
        for parent in list(pathlib.PurePosixPath(path.strip("/")).parents)[:-1]:
            self.entries.setdefault(str(parent), (tarfile.DIRTYPE, 0o755, b"", ""))

    def bytes(self):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name in sorted(self.entries):
                kind, mode, data, target = self.entries[name]
                info = tarfile.TarInfo(name)
                info.type, info.mode, info.size, info.mtime, info.linkname = kind, mode, len(data), EPOCH, target
                tar.addfile(info, io.BytesIO(data))
        return buffer.getvalue()


def libraries(files):
    """All libraries that these files load, by the name under which they are looked for, and the loader."""
    found = {}
    for file in files:
        for line in run("ldd", file).splitlines():
            match = re.match(r"\s*(\S+) => (/\S+)", line) or re.match(r"\s*(/\S+)() \(", line)
            if match:
                name = match[1]
                found[name] = match[2] or name
            elif "not found" in line:
                raise SystemExit(f"image.py: {file}: {line.strip()}")
    return found


def owner(file):
    """The Debian package of a file, which may be known by its name before /usr was merged."""
    real = os.path.realpath(file)
    for name in (real, real.removeprefix("/usr")):
        done = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.splitlines()[0].split(": ")[0].split(",")[0].split(":")[0]
    raise SystemExit(f"image.py: {file} is of no Debian package: the image would hold something unknown")


def base(programs):
    layer, packages = Layer(), set()
    for name, mode in DIRECTORIES.items():
        layer.directory(name, mode)
    for name, text in FILES.items():
        layer.file(name, text.encode())
    # As Debian has it: one place.
    for name in ("bin", "sbin", "lib", "lib64"):
        layer.link(name, f"usr/{name}")
    for name in ("bin", "sbin", "lib", "lib64"):
        layer.directory(f"usr/{name}")

    triplet = run("gcc", "-print-multiarch").strip() if os.path.exists("/usr/bin/gcc") else "x86_64-linux-gnu"
    pcap = f"/usr/lib/{triplet}/libpcap.so.0.8"
    plugins = [f"/usr/lib/{triplet}/xtables/{name}" for name in PLUGINS]
    plugins = [it for it in plugins if os.path.exists(it)]
    missing = [it for it in [*TOOLS, pcap] if not os.path.exists(it)]
    if missing:
        raise SystemExit(f"image.py: missing: {', '.join(missing)} (Debian: nftables, iptables, libpcap0.8)")
    for path in TOOLS:
        packages.add(owner(path))
        layer.file(path, pathlib.Path(path).read_bytes(), 0o755)
    for path, to in LINKS.items():
        layer.link(path, to)
    for path in plugins:
        packages.add(owner(path))
        layer.file(path, pathlib.Path(path).read_bytes())
    wanted = {"libpcap.so.0.8": pcap, "libpcap.so.1": pcap} | libraries([*programs, *TOOLS, *plugins, pcap])
    for name, path in wanted.items():
        if not os.path.exists(path):
            continue
        packages.add(owner(path))
        data = pathlib.Path(path).read_bytes()
        if name.startswith("/"):
            # The loader, where programs name it.
            layer.file(f"usr/{name.removeprefix('/usr').strip('/')}", data, 0o755)
        else:
            layer.file(f"usr/lib/{triplet}/{name}", data, 0o755)
    for package in packages:
        copyright = pathlib.Path(f"/usr/share/doc/{package}/copyright")
        if copyright.exists():
            layer.file(str(copyright), copyright.read_bytes())
    versions = [run("dpkg-query", "-W", "-f", "${Package} ${Version}", it) for it in sorted(packages)]
    # So that scanners know what is there.
    status = "".join(run("dpkg-query", "-s", it) + "\n" for it in sorted(packages))
    layer.file("var/lib/dpkg/status", status.encode())
    layer.file("etc/os-release", pathlib.Path("/etc/os-release").read_bytes())
    return layer, versions


def main(deb, version, image):
    with tempfile.TemporaryDirectory() as folder:
        run("dpkg-deb", "-x", deb, folder)
        programs = [f"{folder}/usr/bin/{name}" for name in PROGRAMS]
        below, versions = base(programs)
        above = Layer()
        for name, path in zip(PROGRAMS, programs):
            above.file(f"usr/bin/{name}", pathlib.Path(path).read_bytes(), 0o755)
        doc = pathlib.Path(folder, "usr/share/doc/millrace")
        for file in sorted(it for it in doc.rglob("*") if it.is_file()):
            name = file.relative_to(doc)
            if str(name) in ("copyright", "third-party-licences.txt.gz") or name.parts[0] == "examples":
                above.file(f"usr/share/doc/millrace/{name}", file.read_bytes())

    blobs, time = {}, datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ")

    def blob(data, media):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    def encode(value):
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    layers, diffs = [], []
    for layer in (below, above):
        data = layer.bytes()
        diffs.append(f"sha256:{hashlib.sha256(data).hexdigest()}")
        layers.append(blob(gzip.compress(data, 9, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip"))
    labels = {
        "org.opencontainers.image.title": "millrace",
        "org.opencontainers.image.description": "Copies live TCP traffic to a test cluster",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.created": created,
    }
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        # No entry point: three programs, of which the user names one.
        "config": {"Cmd": ["/usr/bin/millrace-copier", "--help"], "Labels": labels,
                   "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "StopSignal": "SIGTERM", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": diffs},
        "history": [{"created": created, "created_by": f"Debian: {', '.join(versions)}"},
                    {"created": created, "created_by": f"millrace {version}"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(encode(config), "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
        "annotations": labels,
    }
    entry = blob(encode(manifest), "application/vnd.oci.image.manifest.v1+json")
    entry["platform"] = {"architecture": "amd64", "os": "linux"}
    entry["annotations"] = {"org.opencontainers.image.ref.name": version,
                            "io.containerd.image.name": f"localhost/millrace:{version}"}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}

    layout = Layer()
    layout.file("oci-layout", encode({"imageLayoutVersion": "1.0.0"}))
    layout.file("index.json", encode(index))
    for digest, data in blobs.items():
        layout.file(f"blobs/sha256/{digest}", data)
    pathlib.Path(image).write_bytes(layout.bytes())
    print(image)
    print(f"digest: {entry['digest']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
