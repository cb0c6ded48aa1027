"""README.md is made of the comments of values.yaml, and its example works. UPDATE=1 writes it anew."""

import os
import re

import yaml
from chart import CHART, run_helm

import readme


def leaves(values: dict, path: str = ""):
    for key, value in values.items():
        name = f"{path}{key}"
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{name}.")
        else:
            yield name


def test_as_made():
    file = CHART / "README.md"
    if os.environ.get("UPDATE"):
        file.write_text(readme.render())
    assert file.read_text() == readme.render(), "UPDATE=1 make helm"


def test_each_value_is_documented():
    text = (CHART / "values.yaml").read_text()
    documented = [name for name, _ in readme.rows(text)]
    missing = [
        leaf
        for leaf in leaves(yaml.safe_load(text))
        if not any(leaf == name or leaf.startswith(f"{name}.") for name in documented)
    ]
    # An image of its own, documented as a whole by the comment above it.
    assert [leaf for leaf in missing if "helperImage" not in leaf] == []


def test_the_example_works(tmp_path):
    [example] = re.findall(r"```yaml\n(.*?)```", (CHART / "README.md").read_text(), re.DOTALL)
    (tmp_path / "values.yaml").write_text(example)
    done = run_helm("template", "millrace", CHART, "-f", tmp_path / "values.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kind: DaemonSet") == 3
