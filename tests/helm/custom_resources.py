"""JSON schemas of the custom resources that the chart makes: the fields that it uses, and no others. Pod templates in them are checked as Pods, by Kubernetes' own
schemas. Sources: the API references of LeaderWorkerSet v1, MPI Operator v2beta1 and Prometheus Operator v1."""


def closed(required, **properties):
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def one_of(*values):
    return {"enum": list(values)}


TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
POD_TEMPLATE = closed(["metadata", "spec"], metadata={"type": "object"}, spec={"type": "object"})
LABELS = {"type": "object", "additionalProperties": TEXT}
SELECTOR = closed(["matchLabels"], matchLabels=LABELS)
METADATA = closed(["name", "namespace", "labels"], name=TEXT, namespace=TEXT, labels=LABELS)

LEADER_WORKER_SET = closed(
    ["leaderWorkerTemplate"],
    replicas=COUNT,
    startupPolicy=one_of("LeaderCreated", "LeaderReady"),
    rolloutStrategy=closed(["type"], type=one_of("RollingUpdate"), rollingUpdateConfiguration=closed([], maxSurge=COUNT, maxUnavailable=COUNT)),
    leaderWorkerTemplate=closed(
        ["workerTemplate"],
        size={"type": "integer", "minimum": 1},
        restartPolicy=one_of("RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"),
        leaderTemplate=POD_TEMPLATE,
        workerTemplate=POD_TEMPLATE,
    ),
)
REPLICA = closed(["template"], replicas=COUNT, restartPolicy=one_of("Never", "OnFailure"), template=POD_TEMPLATE)
MPI_JOB = closed(
    ["mpiReplicaSpecs"],
    slotsPerWorker={"type": "integer", "minimum": 1},
    sshAuthMountPath=TEXT,
    mpiImplementation=one_of("OpenMPI", "Intel", "MPICH"),
    runLauncherAsWorker={"type": "boolean"},
    launcherCreationPolicy=one_of("AtStartup", "WaitForWorkersReady"),
    runPolicy=closed([], cleanPodPolicy=one_of("None", "Running", "All")),
    mpiReplicaSpecs=closed(["Launcher"], Launcher=REPLICA, Worker=REPLICA),
)
ENDPOINT = closed(["port"], port=TEXT, path=TEXT, interval=TEXT, scheme=one_of("http", "https"), tlsConfig=closed([], insecureSkipVerify={"type": "boolean"}))
POD_MONITOR = closed(["selector", "podMetricsEndpoints"], selector=SELECTOR, podMetricsEndpoints={"type": "array", "minItems": 1, "items": ENDPOINT})
RULE = closed(["expr"], record=TEXT, alert=TEXT, expr=TEXT, labels=LABELS, annotations=LABELS, **{"for": TEXT})
PROMETHEUS_RULE = closed(["groups"], groups={"type": "array", "items": closed(["name", "rules"], name=TEXT, rules={"type": "array", "items": RULE})})

SPECS = {
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"): LEADER_WORKER_SET,
    ("kubeflow.org/v2beta1", "MPIJob"): MPI_JOB,
    ("monitoring.coreos.com/v1", "PodMonitor"): POD_MONITOR,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PROMETHEUS_RULE,
}


def schema_of(resource):
    """None for what Kubernetes itself has."""
    spec = SPECS.get((resource["apiVersion"], resource["kind"]))
    return spec and closed(["apiVersion", "kind", "metadata", "spec"], apiVersion=TEXT, kind=TEXT, metadata=METADATA, spec=spec)


def pod_templates(value):
    """Every pod template in a resource, as a Pod of its own."""
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}) if isinstance(value.get("spec"), dict) else False:
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **value["metadata"]}, "spec": value["spec"]}
        for member in value.values():
            yield from pod_templates(member)
    elif isinstance(value, list):
        for member in value:
            yield from pod_templates(member)
