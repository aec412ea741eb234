"""What an object of Kubernetes may say: the part of its schemas that deploy/ uses, written down here and strict.

The schemas of a release have 100,000 lines, those of KubeRay's resources repeat a pod's in full; neither is at hand
without a network. Here are the fields that this repository uses, by the names and types that Kubernetes 1.32 and
KubeRay 1.5 give them. Anything else is an error, so that a misspelt field does not pass: a new one is added here, after
a look at its documentation. `kubectl apply --dry-run=server` of docs/cluster.md asks the cluster itself.
"""

from __future__ import annotations

from typing import Any

TEXT, COUNT, YES_NO = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
NAME = {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
QUANTITY = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|[KMGT]i?)?$"}
LABELS = {"type": "object", "additionalProperties": TEXT}


def some(schema: dict[str, Any]) -> dict[str, Any]:
    """A list of these, not empty."""
    return {"type": "array", "items": schema, "minItems": 1}


def thing(required: str = "", **properties: dict[str, Any]) -> dict[str, Any]:
    """An object with these fields and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


KEY = thing("name key", name=NAME, key=TEXT)
ENV = {
    "oneOf": [
        thing("name value", name=TEXT, value=TEXT),
        thing("name valueFrom", name=TEXT, valueFrom=thing("secretKeyRef", secretKeyRef=KEY)),
    ]
}
ENV_FROM = thing(configMapRef=thing("name", name=NAME), secretRef=thing("name", name=NAME))
RESOURCES = {
    "type": "object",
    "additionalProperties": QUANTITY,
    "propertyNames": {"enum": ["cpu", "memory", "nvidia.com/gpu"]},
}
PROBE = thing(
    periodSeconds=COUNT,
    tcpSocket=thing("port", port=COUNT),
    exec=thing("command", command=some(TEXT)),
)
CONTAINER = thing(
    "name image",
    name=NAME,
    image=TEXT,
    command=some(TEXT),
    args=some(TEXT),
    env=some(ENV),
    envFrom=some(ENV_FROM),
    ports=some(thing("name containerPort", name=NAME, containerPort=COUNT)),
    resources=thing("requests", requests=RESOURCES, limits=RESOURCES),
    readinessProbe=PROBE,
    volumeMounts=some(thing("name mountPath", name=NAME, mountPath=TEXT)),
)
POD = thing(
    "containers",
    containers=some(CONTAINER),
    volumes=some(
        thing("name emptyDir", name=NAME, emptyDir=thing("sizeLimit", medium={"enum": ["Memory"]}, sizeLimit=QUANTITY))
    ),
    nodeSelector=LABELS,
    tolerations=some(thing("key operator effect", key=TEXT, operator={"enum": ["Exists", "Equal"]}, effect=TEXT)),
    terminationGracePeriodSeconds=COUNT,
    enableServiceLinks=YES_NO,
    restartPolicy={"enum": ["OnFailure", "Never", "Always"]},
)
TEMPLATE = thing("spec", metadata=thing("labels", labels=LABELS), spec=POD)
SELECTOR = thing("matchLabels", matchLabels=LABELS)
CLAIM = thing(
    "metadata spec",
    metadata=thing("name", name=NAME),
    spec=thing(
        "accessModes resources",
        accessModes=some({"enum": ["ReadWriteOnce", "ReadWriteMany"]}),
        resources=thing("requests", requests=thing("storage", storage=QUANTITY)),
    ),
)
START_PARAMS = {"type": "object", "additionalProperties": TEXT}  # numbers in quotes: KubeRay refuses others
RAY_CLUSTER = thing(
    "rayVersion headGroupSpec workerGroupSpecs",
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=thing("mode", mode={"enum": ["token", "disabled"]}),
    enableInTreeAutoscaling=YES_NO,
    autoscalerOptions=thing(idleTimeoutSeconds=COUNT),
    headGroupSpec=thing("rayStartParams template", rayStartParams=START_PARAMS, template=TEMPLATE),
    workerGroupSpecs=some(
        thing(
            "groupName minReplicas maxReplicas rayStartParams template",
            groupName=NAME,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=START_PARAMS,
            template=TEMPLATE,
        )
    ),
)
RAY_JOB = thing(
    "entrypoint",
    entrypoint=TEXT,
    clusterSelector=LABELS,
    rayClusterSpec=RAY_CLUSTER,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
    backoffLimit=COUNT,
    shutdownAfterJobFinishes=YES_NO,
    ttlSecondsAfterFinished=COUNT,
)
SPECS = {
    ("v1", "Service"): thing(
        "selector ports",
        selector=LABELS,
        ports=some(thing("name port targetPort", name=NAME, port=COUNT, targetPort=COUNT)),
    ),
    ("apps/v1", "Deployment"): thing(
        "replicas selector template", replicas=COUNT, selector=SELECTOR, template=TEMPLATE
    ),
    ("apps/v1", "StatefulSet"): thing(
        "serviceName replicas selector template",
        serviceName=NAME,
        replicas=COUNT,
        selector=SELECTOR,
        template=TEMPLATE,
        volumeClaimTemplates=some(CLAIM),
    ),
    ("batch/v1", "Job"): thing("template", backoffLimit=COUNT, template=TEMPLATE),
    ("ray.io/v1", "RayCluster"): RAY_CLUSTER,
    ("ray.io/v1", "RayJob"): RAY_JOB,
}
"""(apiVersion, kind) -> what its `spec` may say."""


def schema_of(api: str, kind: str) -> dict[str, Any]:
    """The schema of a whole object. Raises KeyError for a kind that deploy/ does not use."""
    metadata = {
        "oneOf": [
            thing("name", name=NAME, namespace=NAME, labels=LABELS),
            thing("generateName", generateName=TEXT, namespace=NAME),
        ]
    }
    head = {"apiVersion": TEXT, "kind": TEXT, "metadata": metadata}
    if (api, kind) == ("v1", "Namespace"):
        return thing("apiVersion kind metadata", **head)
    if (api, kind) == ("v1", "ConfigMap"):
        return thing("apiVersion kind metadata data", **head, data=LABELS)
    return thing("apiVersion kind metadata spec", **head, spec=SPECS[api, kind])
