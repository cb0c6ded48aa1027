"""helm's own opinion, and what the chart holds copies of."""

import filecmp
import json
import re

import pytest
import yaml
from chart import CHART, PROGRAMS, ROOT, SCENARIOS, run_helm, values_file

import options


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_helm_lints_each_scenario(scenario):
    done = run_helm("lint", "--strict", CHART, "-f", values_file(scenario))
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_values_nothing_runs():
    done = run_helm("template", "millrace", CHART)
    assert done.returncode == 0, done.stderr
    assert [it for it in yaml.safe_load_all(done.stdout) if it] == []


def test_the_chart_packs_without_its_scenarios(tmp_path):
    done = run_helm("package", CHART, "-d", tmp_path)
    assert done.returncode == 0, done.stderr
    [archive] = tmp_path.glob("*.tgz")
    shown = run_helm("template", "millrace", archive, "-f", values_file("monitoring"))
    assert shown.returncode == 0, shown.stderr
    assert "MillraceNotCopying" in shown.stdout
    assert archive.stat().st_size < 100_000


def test_rules_and_dashboards_are_those_of_the_mixin():
    source, copy = ROOT / "deploy/mixin", CHART / "files/mixin"
    names = ["rules.yaml", "alerts.yaml", *(f"dashboards/{it.name}" for it in (source / "dashboards").iterdir())]
    _, different, missing = filecmp.cmpfiles(source, copy, names, shallow=False)
    mend = f"cp -r {' '.join(f'deploy/mixin/{it}' for it in ['rules.yaml', 'alerts.yaml', 'dashboards'])} {copy}"
    assert not different and not missing, mend
    copied = {str(it.relative_to(copy)) for it in copy.rglob("*") if it.is_file()}
    assert copied == set(names)


def test_the_version_is_that_of_the_daemons():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    [version] = re.findall(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert chart["appVersion"] == version


def test_the_schema_knows_the_options_that_the_daemons_have():
    schema = json.loads((CHART / "values.schema.json").read_text())["$defs"]
    for name, expected in options.definitions(PROGRAMS).items():
        assert schema[name] == expected, "python3 tests/helm/options.py target/debug --write"


def test_the_schema_knows_each_value_and_no_other():
    def compare(values, schema, path):
        if "$ref" in schema or schema.get("type") != "object" or schema.get("additionalProperties") is not False:
            return
        assert set(values) == set(schema["properties"]) - ({"global"} if not path else set()), path
        for key, value in values.items():
            if isinstance(value, dict) and value:
                compare(value, schema["properties"][key], f"{path}/{key}")

    compare(
        yaml.safe_load((CHART / "values.yaml").read_text()),
        json.loads((CHART / "values.schema.json").read_text()),
        "",
    )
