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


def many(schema: dict[str, Any]) -> dict[str, Any]:
    """A list of these, not empty."""
    return {"type": "array", "items": schema, "minItems": 1}


def fields(required: str = "", **properties: dict[str, Any]) -> dict[str, Any]:
    """An object with these fields and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


KEY = fields("name key", name=NAME, key=TEXT)
ENV = {
    "oneOf": [
        fields("name value", name=TEXT, value=TEXT),
        fields("name valueFrom", name=TEXT, valueFrom=fields("secretKeyRef", secretKeyRef=KEY)),
    ]
}
ENV_FROM = fields(configMapRef=fields("name", name=NAME), secretRef=fields("name", name=NAME))
RESOURCES = {
    "type": "object",
    "additionalProperties": QUANTITY,
    "propertyNames": {"enum": ["cpu", "memory", "nvidia.com/gpu"]},
}
PROBE = fields(
    periodSeconds=COUNT,
    tcpSocket=fields("port", port=COUNT),
    exec=fields("command", command=many(TEXT)),
)
CONTAINER = fields(
    "name image",
    name=NAME,
    image=TEXT,
    command=many(TEXT),
    args=many(TEXT),
    env=many(ENV),
    envFrom=many(ENV_FROM),
    ports=many(fields("name containerPort", name=NAME, containerPort=COUNT)),
    resources=fields("requests", requests=RESOURCES, limits=RESOURCES),
    readinessProbe=PROBE,
    volumeMounts=many(fields("name mountPath", name=NAME, mountPath=TEXT)),
)
POD = fields(
    "containers",
    containers=many(CONTAINER),
    volumes=many(
        fields(
            "name emptyDir", name=NAME, emptyDir=fields("sizeLimit", medium={"enum": ["Memory"]}, sizeLimit=QUANTITY)
        )
    ),
    nodeSelector=LABELS,
    tolerations=many(fields("key operator effect", key=TEXT, operator={"enum": ["Exists", "Equal"]}, effect=TEXT)),
    terminationGracePeriodSeconds=COUNT,
    enableServiceLinks=YES_NO,
    restartPolicy={"enum": ["OnFailure", "Never", "Always"]},
)
TEMPLATE = fields("spec", metadata=fields("labels", labels=LABELS), spec=POD)
SELECTOR = fields("matchLabels", matchLabels=LABELS)
CLAIM = fields(
    "metadata spec",
    metadata=fields("name", name=NAME),
    spec=fields(
        "accessModes resources",
        accessModes=many({"enum": ["ReadWriteOnce", "ReadWriteMany"]}),
        resources=fields("requests", requests=fields("storage", storage=QUANTITY)),
    ),
)
START_PARAMS = {"type": "object", "additionalProperties": TEXT}  # numbers in quotes: KubeRay refuses others
RAY_CLUSTER = fields(
    "rayVersion headGroupSpec workerGroupSpecs",
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=fields("mode", mode={"enum": ["token", "disabled"]}),
    enableInTreeAutoscaling=YES_NO,
    autoscalerOptions=fields(idleTimeoutSeconds=COUNT),
    headGroupSpec=fields("rayStartParams template", rayStartParams=START_PARAMS, template=TEMPLATE),
    workerGroupSpecs=many(
        fields(
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
RAY_JOB = fields(
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
    ("v1", "Service"): fields(
        "selector ports",
        selector=LABELS,
        ports=many(fields("name port targetPort", name=NAME, port=COUNT, targetPort=COUNT)),
    ),
    ("apps/v1", "Deployment"): fields(
        "replicas selector template", replicas=COUNT, selector=SELECTOR, template=TEMPLATE
    ),
    ("apps/v1", "StatefulSet"): fields(
        "serviceName replicas selector template",
        serviceName=NAME,
        replicas=COUNT,
        selector=SELECTOR,
        template=TEMPLATE,
        volumeClaimTemplates=many(CLAIM),
    ),
    ("batch/v1", "Job"): fields("template", backoffLimit=COUNT, template=TEMPLATE),
    ("ray.io/v1", "RayCluster"): RAY_CLUSTER,
    ("ray.io/v1", "RayJob"): RAY_JOB,
}
"""(apiVersion, kind) -> what its `spec` may say."""


def schema_of(api: str, kind: str) -> dict[str, Any]:
    """The schema of a whole object. Raises KeyError for a kind that deploy/ does not use."""
    metadata = {
        "oneOf": [
            fields("name", name=NAME, namespace=NAME, labels=LABELS),
            fields("generateName", generateName=TEXT, namespace=NAME),
        ]
    }
    head = {"apiVersion": TEXT, "kind": TEXT, "metadata": metadata}
    if (api, kind) == ("v1", "Namespace"):
        return fields("apiVersion kind metadata", **head)
    if (api, kind) == ("v1", "ConfigMap"):
        return fields("apiVersion kind metadata data", **head, data=LABELS)
    return fields("apiVersion kind metadata spec", **head, spec=SPECS[api, kind])
