"""The Kubernetes manifests are valid, and their names refer to each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
OWN_KINDS = ["deployment", "service", "autoscaler", "disruption"]
VERSIONS = ["1.30", "1.34"]


def read(name: str) -> Any:
    """Return the content of a manifest."""
    return yaml.safe_load((DEPLOY / name).read_text())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OWN_KINDS)
def test_manifest_is_valid(name: str, version: str):
    assert kubernetes_validate.validate(read(f"kubernetes/{name}.yaml"), version, strict=True) == version


def test_validation_finds_a_mistake():
    deployment = read("kubernetes/deployment.yaml")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


def test_manifests_refer_to_each_other():
    deployment, service, autoscaler, disruption = (read(f"kubernetes/{name}.yaml") for name in OWN_KINDS)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert (
        service["spec"]["selector"]
        == deployment["spec"]["selector"]["matchLabels"]
        == disruption["spec"]["selector"]["matchLabels"]
        == labels
    )
    ports = {
        port["name"]: port["containerPort"]
        for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    }
    assert ports == {"http": 8000, "grpc": 8001, "metrics": 8002}
    assert [port["targetPort"] for port in service["spec"]["ports"]] == list(ports)
    assert (
        autoscaler["spec"]["scaleTargetRef"]["name"]
        == deployment["metadata"]["name"]
        == read("keda/scaledobject.yaml")["spec"]["scaleTargetRef"]["name"]
    )
    metric = autoscaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert read("kubernetes/prometheus-adapter.yaml")["rules"]["custom"][0]["name"]["as"] == metric


def test_manifests_start_the_same_server_with_the_same_probes():
    command = re.search(r"CMD \[(.+)\]", (DEPLOY / "Dockerfile").read_text())
    assert command
    image = [word.strip(' "') for word in command[1].split(",")]
    plain = read("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["containers"][0]
    served = read("kserve/inferenceservice.yaml")["spec"]["predictor"]["containers"][0]
    assert plain["args"][: len(image)] == served["args"] == image
    for shared in ("startupProbe", "livenessProbe", "resources", "volumeMounts"):
        assert plain[shared] == served[shared], shared
    volumes = read("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["volumes"]
    assert read("kserve/inferenceservice.yaml")["spec"]["predictor"]["volumes"] == volumes


def test_grace_period_is_longer_than_the_wait_of_a_request():
    from bcm_edge.export.triton.configs import QUEUE_SECONDS

    assert (
        read("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        > QUEUE_SECONDS
    )
