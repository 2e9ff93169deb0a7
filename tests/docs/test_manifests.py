"""The Kubernetes manifests of the pages: their form, what refers to what, and what autocut needs of a cluster.

The schema has the fields that the manifests use, as the custom resource of KubeRay 1.1 and Kubernetes 1.30 name them. A field that
is not in it may be a slip: the API server would drop it without a word.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "docs" / "cluster"
MANIFESTS = [
    (file.name, document)
    for file in sorted(FOLDER.glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
]


def record(needed="", **fields):
    """A JSON schema of an object with these fields and no others."""
    return {"type": "object", "properties": fields, "required": needed.split(), "additionalProperties": False}


def listed(item):
    """A JSON schema of a list that is not empty."""
    return {"type": "array", "items": item, "minItems": 1}


TEXT: dict[str, Any] = {"type": "string"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}
AMOUNTS = {"type": "object", "additionalProperties": QUANTITY}
SECRET = record("secretKeyRef", secretKeyRef=record("name key", name=NAME, key=TEXT))
CONTAINER = record(
    "name image resources",
    name=NAME,
    image=TEXT,
    env=listed({"anyOf": [record("name value", name=TEXT, value=TEXT), record("name valueFrom", name=TEXT, valueFrom=SECRET)]}),
    ports=listed(record("containerPort", containerPort=COUNT, name=NAME)),
    resources=record("requests limits", requests=AMOUNTS, limits=AMOUNTS),
    volumeMounts=listed(record("name mountPath", name=NAME, mountPath={"type": "string", "pattern": "^/"})),
)
SELECTOR = record("matchLabels", matchLabels=TEXTS)
APART = record("topologyKey labelSelector", topologyKey=TEXT, labelSelector=SELECTOR)
POD = record(
    "containers",
    containers=listed(CONTAINER),
    volumes=listed(record("name", name=NAME, persistentVolumeClaim=record("claimName", claimName=NAME))),
    nodeSelector=TEXTS,
    affinity=record(podAntiAffinity=record(requiredDuringSchedulingIgnoredDuringExecution=listed(APART))),
)
METADATA = record(name=NAME, labels=TEXTS)
TEMPLATE = record("spec", metadata=METADATA, spec=POD)
CLAIM = record(
    "accessModes resources",
    accessModes=listed({"enum": ["ReadWriteOnce", "ReadWriteMany"]}),
    resources=record("requests", requests=record("storage", storage=QUANTITY)),
)
GROUP = {"rayStartParams": TEXTS, "template": TEMPLATE}
WORKERS = record(
    "groupName minReplicas maxReplicas rayStartParams template",
    groupName=NAME, replicas=COUNT, minReplicas=COUNT, maxReplicas=COUNT, **GROUP,
)  # fmt: skip
SPECS = {
    ("v1", "PersistentVolumeClaim"): CLAIM,
    ("v1", "Service"): record("ports", selector=TEXTS, ports=listed(record("port", port=COUNT))),
    ("apps/v1", "StatefulSet"): record(
        "serviceName replicas selector template",
        serviceName=NAME,
        replicas=COUNT,
        selector=SELECTOR,
        template=TEMPLATE,
        volumeClaimTemplates=listed(record("metadata spec", metadata=METADATA, spec=CLAIM)),
    ),
    ("ray.io/v1", "RayCluster"): record(
        "headGroupSpec", rayVersion=TEXT, headGroupSpec=record("rayStartParams template", **GROUP), workerGroupSpecs=listed(WORKERS)
    ),
}


def fields(document, name):
    """Every value of a field of this name, at any depth."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key == name:
                yield value
            yield from fields(value, name)
    elif isinstance(document, list):
        for item in document:
            yield from fields(item, name)


@pytest.fixture
def cluster():
    """The RayCluster of the pages."""
    (found,) = (document for _, document in MANIFESTS if document["kind"] == "RayCluster")
    return found["spec"]


@pytest.mark.parametrize(("file", "document"), MANIFESTS, ids=[f"{file}-{document['kind']}" for file, document in MANIFESTS])
def test_a_manifest_has_the_form_that_kubernetes_takes(file, document):
    """Required fields are there, no other than known ones are, and texts are quoted where they look like numbers."""
    spec = SPECS[document["apiVersion"], document["kind"]]
    jsonschema.validate(document, record("apiVersion kind metadata spec", apiVersion=TEXT, kind=TEXT, metadata=METADATA, spec=spec))


@pytest.mark.parametrize(("file", "document"), MANIFESTS, ids=[f"{file}-{document['kind']}" for file, document in MANIFESTS])
def test_what_a_manifest_refers_to_is_there(file, document):
    """Volumes, claims and secrets: the comment at the top of the file has the command that makes a secret."""
    made = {other["metadata"]["name"] for _, other in MANIFESTS} | {"data"}
    secrets = re.findall(r"create secret generic (\S+) --from-literal=(\w+)=", (FOLDER / file).read_text(encoding="utf-8"))
    volumes = {volume["name"] for listed_ones in fields(document, "volumes") for volume in listed_ones} | {"data"}

    assert {claim["claimName"] for claim in fields(document, "persistentVolumeClaim")} <= made
    assert {(key["name"], key["key"]) for key in fields(document, "secretKeyRef")} <= set(secrets)
    assert {mount["name"] for mounts in fields(document, "volumeMounts") for mount in mounts} <= volumes


def test_the_head_runs_no_jobs_and_every_pod_has_token_and_shared_folder(cluster):
    """What is timed must not be disturbed, and a node without the two cannot work."""
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    pods = [group["template"]["spec"]["containers"][0] for group in groups]

    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all({"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} <= {one["name"] for one in pod["env"]} for pod in pods)
    assert {mount["mountPath"] for pod in pods for mount in pod["volumeMounts"]} == {"/shared"}


def test_a_worker_owns_its_processors_and_its_machine(cluster):
    """Only then are its timings its own: requests equal limits, and no two workers share a machine."""
    for group in cluster["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        resources = pod["containers"][0]["resources"]
        apart = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]

        assert resources["requests"] == resources["limits"]
        assert resources["requests"]["cpu"].isdigit()
        assert [rule["labelSelector"]["matchLabels"]["ray.io/group"] for rule in apart] == [group["groupName"]]
