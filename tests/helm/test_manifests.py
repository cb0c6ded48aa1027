"""What is rendered is valid, with no field that is unknown."""

import importlib

import kubernetes_validate
import pytest
import yaml
from chart import SCENARIOS, manifests

VERSIONS = [f"1.{minor}.0" for minor in range(30, 38)]
CUSTOM = {
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
    "cert-manager.io/v1": "cloudcoil.models.cert_manager.v1",
}
# There is no schema to be had of these.
WITHOUT_SCHEMA = {"security.openshift.io/v1"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_valid_for(scenario, version):
    checked = 0
    for manifest in manifests(scenario):
        if manifest["apiVersion"] not in CUSTOM.keys() | WITHOUT_SCHEMA:
            assert kubernetes_validate.validate(manifest, version, strict=True) == version.removesuffix(".0")
            checked += 1
    assert checked > 2


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_custom_resources_are_valid(scenario):
    for manifest in manifests(scenario):
        module = CUSTOM.get(manifest["apiVersion"])
        if module:
            model = getattr(importlib.import_module(module), manifest["kind"]).model_validate(manifest)
            known = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
            # What the model does not know is left out there.
            assert yaml.safe_dump(shape(manifest)) == yaml.safe_dump(shape(known))


def test_each_custom_resource_is_part_of_a_scenario():
    kinds = {it["kind"] for scenario in SCENARIOS for it in manifests(scenario)}
    assert {"PodMonitor", "PrometheusRule", "Certificate", "SecurityContextConstraints"} <= kinds


def test_the_schemas_are_strict():
    [manifest] = [it for it in manifests("copier-only") if it["kind"] == "DaemonSet"]
    manifest["spec"]["template"]["spec"]["hostNetwrok"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def shape(value):
    """The keys of a manifest, without the values, which a model may write in another way."""
    if isinstance(value, dict):
        return {key: shape(it) for key, it in value.items()}
    return [shape(it) for it in value] if isinstance(value, list) else ""
