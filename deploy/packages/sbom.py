#!/usr/bin/env python3
"""What is linked into the programs: a bill of materials (CycloneDX 1.5, JSON), or the licences of it as text.

    sbom.py materials|licences VERSION TARGET < cargo-metadata.json
"""

import datetime
import json
import os
import pathlib
import re
import sys
import uuid

PROGRAMS = ("millrace-copier", "millrace-interceptor", "millrace-router-agent")


def linked(metadata):
    """The packages that are linked into the programs: neither tests nor build scripts and procedural macros."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    uses, todo = {}, [id for id, package in packages.items() if package["name"] in PROGRAMS]
    while todo:
        id = todo.pop()
        if id in uses:
            continue
        deps = [dep for dep in nodes[id]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
        kinds = lambda dep: {kind for target in packages[dep["pkg"]]["targets"] for kind in target["kind"]}
        uses[id] = sorted(dep["pkg"] for dep in deps if "proc-macro" not in kinds(dep))
        todo += uses[id]
    order = sorted(uses, key=lambda id: (packages[id]["name"], packages[id]["version"]))
    return [(packages[id], uses[id]) for id in order], packages


def checksums(root):
    """SHA-256 of each crate as the registry has it, from Cargo.lock."""
    text = (pathlib.Path(root) / "Cargo.lock").read_text()
    entry = r'name = "(.+)"\nversion = "(.+)"\nsource = .+\nchecksum = "(.+)"'
    return {(name, version): sum for name, version, sum in re.findall(entry, text)}


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, sums):
    own = package["source"] is None
    result = {
        "type": "application" if package["name"] in PROGRAMS else "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
        # Cargo's older way of writing OR.
        "licenses": [{"expression": re.sub(r" */ *", " OR ", package["license"] or "NOASSERTION")}],
    }
    sum = sums.get((package["name"], package["version"]))
    if sum:
        result["hashes"] = [{"alg": "SHA-256", "content": sum}]
    elif not own:
        raise SystemExit(f"sbom.py: {package['name']} has no checksum in Cargo.lock")
    return result


def materials(metadata, version, target):
    all, packages = linked(metadata)
    sums = checksums(metadata["workspace_root"])
    components = [component(package, sums) for package, _ in all]
    time = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    main = {"type": "application", "bom-ref": "millrace", "name": "millrace", "version": version,
            "licenses": [{"expression": "Apache-2.0"}]}
    depends = [{"ref": "millrace", "dependsOn": [reference(it) for it, _ in all if it["name"] in PROGRAMS]}]
    depends += [{"ref": reference(package), "dependsOn": sorted(reference(packages[id]) for id in ids)}
                for package, ids in all]
    what = json.dumps([components, depends], sort_keys=True)
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # The same for the same contents.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, what)}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": main,
            "properties": [{"name": "millrace:target", "value": target}],
        },
        "components": components,
        "dependencies": depends,
    }
    print(json.dumps(bom, indent=1))


def licences(metadata):
    all, _ = linked(metadata)
    texts = {}
    print("The programs of Millrace are made of these crates.\n")
    for package, _ in all:
        if package["source"] is None:
            continue
        print(f"{package['name']} {package['version']}: {package['license']}")
        folder = pathlib.Path(package["manifest_path"]).parent
        for file in sorted(folder.iterdir()):
            if re.match(r"(?i)(licen[cs]e|copying|copyright|notice)", file.name) and file.is_file():
                texts.setdefault(file.read_text(errors="replace").strip(), []).append(package["name"])
    for text, names in sorted(texts.items(), key=lambda it: it[1]):
        print(f"\n{'=' * 78}\n{', '.join(sorted(set(names)))}:\n\n{text}")


if __name__ == "__main__":
    what, version, target = sys.argv[1:]
    metadata = json.load(sys.stdin)
    materials(metadata, version, target) if what == "materials" else licences(metadata)
