#!/usr/bin/env python3
"""Goal    The chart renders what Kubernetes takes, whatever its main values are; refuses values that make no sense; and lockstepd takes its configuration.
Method  Helm's engine renders every combination; Kubernetes' schemas (strict: no unknown field) and those of the custom resources judge. Golden files show changes.
        `chart_test.py --update` writes the golden files."""

import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import helm_python
import jsonschema
import kubernetes_validate
import yaml
from custom_resources import pod_templates, schema_of
from values_page import page

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "helm/lockstep"
GOLDEN = pathlib.Path(__file__).parent / "golden"
CHART = helm_python.Chart.load(str(FOLDER))
KUBERNETES = ("1.31.0", kubernetes_validate.latest_version())
# Fields that came later than the oldest release that is checked: OCI images as volumes.
IMAGE_VOLUME_SINCE = 33

SSH = {"secrets": {"ssh": "ssh-keys"}}
LAUNCHES = [{}, {"launch": "leaderWorkerSet", "nodes": 2, "replicas": 2, **SSH}, {"launch": "mpiJob", "nodes": 3, **SSH}]
DEVICES = [{}, {"devices": {"kind": "gpu", "perNode": 8}}]
MODELS = [{}, {"model": {"source": "pvc", "reference": "models", "folder": "qwen"}}, {"model": {"source": "hostPath", "reference": "/srv/models"}},
          {"model": {"source": "image", "reference": "models/qwen:1"}}]  # fmt: skip
SECRETS = [{}, {"secrets": {"apiKeys": "keys", "tls": "certificate", "group": "group"}}]
EXTRAS = [{"podDisruptionBudget": {"enabled": False}, "networkPolicy": {"enabled": False}, "serviceAccount": {"create": False}},
          {"monitoring": {"podMonitor": True, "prometheusRule": True, "dashboard": True, "labels": {"release": "prometheus"}}, "nodeSelector": {"gpu": "h100"},
           "tolerations": [{"operator": "Exists"}], "priorityClassName": "high", "runtimeClassName": "nvidia", "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"},
           "options": {"max-num-seqs": 1000000, "log-level": "debug"}, "env": {"NCCL_DEBUG": "INFO"}, "launcherOptions": ["--grace", "20"], "image": {"pullSecrets": ["registry"]}}]  # fmt: skip
GOLDENS = {
    "pod": {},
    "leader_worker_set": {**LAUNCHES[1], **DEVICES[1], **MODELS[1]},
    "mpi_job": {**LAUNCHES[2], **DEVICES[1], "secrets": {"ssh": "ssh-keys", "tls": "certificate", "apiKeys": "keys"}},
    "monitored": {"monitoring": {"podMonitor": True}, "devices": {"perNode": 2}, "options": {"max-num-seqs": 32}},
}


def merged(*parts):
    result = {}
    for part in parts:
        for key, value in part.items():
            result[key] = {**result.get(key, {}), **value} if isinstance(value, dict) else value
    return result


def render(values, release="demo"):
    """The resources, in the order of the templates' names."""
    rendered = CHART.render(values=values, name=release, namespace="serving")
    texts = [text for name, text in sorted(rendered.items()) if name.endswith(".yaml")]
    return [resource for text in texts for resource in yaml.safe_load_all(text) if resource]


def golden_text(values):
    return yaml.safe_dump_all(render(values), sort_keys=False, width=150)


def of_kind(resources, kind):
    return [resource for resource in resources if resource["kind"] == kind]


class Chart(unittest.TestCase):
    def validate(self, resource, version):
        if schema := schema_of(resource):
            jsonschema.validate(resource, schema)
            for pod in pod_templates(resource):
                kubernetes_validate.validate(pod, version, strict=True)
        else:
            kubernetes_validate.validate(resource, version, strict=True)

    def test_is_valid_in_every_combination_of_its_main_values(self):
        combinations = list(itertools.product(LAUNCHES, DEVICES, MODELS, SECRETS, EXTRAS))
        self.assertEqual(len(combinations), 96)
        for parts in combinations:
            values = merged(*parts)
            resources = render(values)
            for version in KUBERNETES:
                if values.get("model", {}).get("source") == "image" and int(version.split(".")[1]) < IMAGE_VOLUME_SINCE:
                    continue
                for resource in resources:
                    with self.subTest(values=values, version=version, kind=resource["kind"]):
                        self.validate(resource, version)

    def test_pods_are_restricted_and_their_secrets_are_files(self):
        for parts in itertools.product(LAUNCHES, DEVICES, SECRETS):
            for resource in render(merged(*parts)):
                for pod in pod_templates(resource):
                    spec = pod["spec"]
                    self.assertTrue(spec["securityContext"]["runAsNonRoot"])
                    self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                    self.assertEqual((spec["automountServiceAccountToken"], spec["enableServiceLinks"]), (False, False))
                    for container in spec["containers"]:
                        security = container["securityContext"]
                        self.assertEqual((security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"], security["capabilities"]), (False, True, {"drop": ["ALL"]}))
                        self.assertFalse([variable for variable in container["env"] if "valueFrom" in variable])

    def test_volumes_and_mounts_of_every_container_match(self):
        for parts in itertools.product(LAUNCHES, MODELS, SECRETS):
            for resource in render(merged(*parts)):
                for pod in pod_templates(resource):
                    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
                    self.assertEqual(volumes, {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]})

    def test_leaves_time_for_hook_and_drain_before_the_kill(self):
        drain = {"delay": 7, "timeout": 60, "margin": 5}
        (deployment,) = of_kind(render({"drain": drain}), "Deployment")
        spec = deployment["spec"]["template"]["spec"]
        hook = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
        self.assertEqual(spec["terminationGracePeriodSeconds"], 72)
        self.assertTrue(hook.startswith("sleep 7; kill -USR1 1;"), hook)
        self.assertIn("drain-timeout = 60s", self.configuration({"drain": drain}))

    def configuration(self, values):
        return of_kind(render(values), "ConfigMap")[0]["data"]["lockstep.conf"]

    def test_gives_lockstepd_a_configuration_that_it_takes(self):
        options = {"max-num-seqs": 1000000, "log-level": "debug", "stall-timeout": "20s", "served-model-name": "a model"}
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(self.configuration({"options": options}))
            file.flush()
            environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCKSTEP_")}
            result = subprocess.run([os.environ["LOCKSTEP_E2E_BINARY"], "--dry-run", "--assume-ranks", "2", "--config", file.name], capture_output=True, text=True,
                                    timeout=60, check=False, env=environment)  # fmt: skip
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("at most 1000000 requests", result.stdout)

    def test_text_of_options_reaches_lockstepd_as_it_is(self):
        for text in ("<think> & 'more'", 'C:\\a "b" # c', "ü = [1]"):
            written = self.configuration({"options": {"served-model-name": text}, "model": {"source": "pvc", "reference": "m", "folder": "a # b/"}})
            with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
                file.write(re.sub(r"^model = .*", "", written, flags=re.MULTILINE))
                file.flush()
                result = subprocess.run([os.environ["LOCKSTEP_E2E_BINARY"], "--check", "--config", file.name], capture_output=True, text=True, timeout=60, check=False, env={})
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn('\nmodel = "/models/a # b"\n', written)

    def test_takes_names_that_look_like_something_else(self):
        values = {"secrets": {"apiKeys": "123", "tls": "1e3", "group": "null"}, "serviceAccount": {"name": "true"}, "priorityClassName": "0", "model": {"source": "pvc", "reference": "12"},
                  "image": {"pullSecrets": ["7"]}, "monitoring": {"podMonitor": True}}  # fmt: skip
        for release, name in (("123", "r123-lockstep"), ("a.b", "a-b-lockstep"), ("true", "true-lockstep"), ("lockstep", "lockstep"), ("x" * 53, "x" * 40)):
            resources = render(values, release)
            for resource in resources:
                self.validate(resource, KUBERNETES[1])
                self.assertEqual(resource["metadata"]["labels"]["app.kubernetes.io/instance"], release)
            self.assertEqual(of_kind(resources, "Service")[0]["metadata"]["name"], name)

    def test_evictions_of_an_mpi_job_are_counted_as_kubernetes_can(self):
        # Its pods' owners have no scale: with maxUnavailable no pod could ever be evicted.
        for values, expected in ((LAUNCHES[0], {"maxUnavailable": 1}), (LAUNCHES[1], {"maxUnavailable": 1}), (LAUNCHES[2], {"minAvailable": 2}),
                                 (merged(LAUNCHES[2], {"podDisruptionBudget": {"maxUnavailable": 9}}), {"minAvailable": 0})):  # fmt: skip
            (budget,) = of_kind(render(values), "PodDisruptionBudget")
            self.assertEqual({key: value for key, value in budget["spec"].items() if key != "selector"}, expected)

    def test_every_pod_of_a_group_drains_before_it_goes(self):
        for launch in LAUNCHES:
            for resource in render(merged(launch, {"drain": {"delay": 7}})):
                for pod in pod_templates(resource):
                    hook = pod["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
                    self.assertIn("7", " ".join(hook))
                    self.assertEqual(hook[:3] == ["bash", "/etc/lockstep/launch.sh", "drain"], pod["metadata"]["labels"]["app.kubernetes.io/component"] == "worker")

    def test_takes_every_option_of_lockstepd_but_those_that_it_sets(self):
        told = subprocess.run([os.environ["LOCKSTEP_E2E_BINARY"], "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
        known = set(re.findall(r"^  (?:-h, )?--([a-z][a-z-]*)", told, re.MULTILINE)) - {"help", "version"}
        schema = json.loads((FOLDER / "values.schema.json").read_text())
        refused = set(schema["properties"]["options"]["propertyNames"]["not"]["enum"])
        self.assertEqual(refused - known, set(), "no option has that name any more")
        written = re.findall(r"^([a-z-]+) = \"given\"$", self.configuration({"options": dict.fromkeys(known - refused, "given")}), re.MULTILINE)
        self.assertEqual(set(written), known - refused)

    def test_refuses_wrong_values_by_name(self):
        wrong = [({"launch": "sometimes"}, "launch"), ({"nodes": 2}, "nodes"), ({"launch": "leaderWorkerSet", "nodes": 2}, "ssh"), ({"launch": "mpiJob", "nodes": 1, **SSH}, "nodes"),
                 ({"launch": "mpiJob", "nodes": 2, "replicas": 2, **SSH}, "replicas"), ({"devices": {"perNode": 0}}, "perNode"), ({"devices": {"kind": "tpu"}}, "kind"),
                 ({"replica": 2}, "replica"), ({"options": {"port": 1}}, "port"), ({"options": {"Max_Num_Seqs": 1}}, "Max_Num_Seqs"), ({"model": {"source": "pvc"}}, "reference"),
                 ({"drain": {"timeout": "30s"}}, "timeout"), ({"image": {"digest": "sha256:1"}}, "digest"), ({"service": {"port": 0}}, "port"),
                 ({"ports": {"mpi": 65000}}, "mpi"), ({"ports": {"rank": 7998}, "devices": {"perNode": 2}}, "ports.shared"),
                 ({"ports": {"peer": 24255}}, "ports.peer"), ({"sharedMemory": "lots"}, "sharedMemory"), ({"options": {"unix-socket": "/tmp/s"}}, "unix-socket"),
                 ({"options": {"metrics-address": "0.0.0.0:9090"}}, "metrics-address"), ({"model": {"folder": "a"}}, "folder"),
                 ({"model": {"source": "hostPath", "reference": "models"}}, "reference"), ({"model": {"source": "pvc", "reference": "my models"}}, "reference"),
                 ({"podDisruptionBudget": {"maxUnavailable": "some"}}, "maxUnavailable"), ({"image": {"tag": "a b"}}, "tag"), ({"env": {"LOCKSTEP_PORT": "1"}}, "LOCKSTEP_PORT"),
                 ({"env": {"A": 1}}, "env"), ({"launcherOptions": ["-n", "2"]}, "launcherOptions"), ({"launcherOptions": ["--mpi"]}, "launcherOptions")]  # fmt: skip
        self.assert_refused(wrong)

    def test_refuses_what_kubernetes_would_refuse_later(self):
        spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
        wrong = [({"podLabels": {"a": 1}}, "podLabels"), ({"podLabels": {"a": "two words"}}, "podLabels"), ({"podAnnotations": {"a": True}}, "podAnnotations"),
                 ({"nodeSelector": {"gpu": True}}, "nodeSelector"), ({"tolerations": [{"oprator": "Exists"}]}, "tolerations"), ({"affinity": {"node": {}}}, "affinity"),
                 ({"topologySpread": [{}]}, "topologySpread"), ({"networkPolicy": {"clients": [{"pods": {}}]}}, "clients"), ({"networkPolicy": {"clients": [{}]}}, "clients"),
                 ({"serviceAccount": {"annotations": {"a": 1}}}, "annotations"), ({"monitoring": {"labels": {"a": 1}}}, "labels"), ({"monitoring": {"interval": "0s"}}, "interval"),
                 ({"resources": {"requests": {"cpu": "lots"}}}, "cpu"), ({"devices": {"kind": "gpu", "gpuResource": "a b: c"}}, "gpuResource"), ({"ports": {"rank": 65535}, "devices": {"perNode": 2}}, "ports.rank"),
                 ({"ports": {"peer": 65535}, "devices": {"perNode": 2}}, "ports.peer"), ({"model": {"source": "hostPath", "reference": "/srv/../etc"}}, "reference"),
                 ({"model": {"source": "pvc", "reference": "m", "folder": "/a"}}, "folder"), ({"model": {"source": "pvc", "reference": "m", "folder": "a/../../b"}}, "folder"),
                 # What the chart sets itself would be there twice, and the last one would win without a word.
                 ({"podLabels": {"app.kubernetes.io/component": "x"}}, "app.kubernetes.io/component"), ({"monitoring": {"labels": {"app.kubernetes.io/name": "x"}}}, "app.kubernetes.io/name"),
                 ({"podAnnotations": {"checksum/configuration": "x"}}, "checksum/configuration"), ({"topologySpread": [{**spread, "labelSelector": {}}]}, "topologySpread"),
                 # A default that is taken away: no rank at all, https without a certificate.
                 ({"devices": {"perNode": None}}, "perNode"), ({"secrets": {"tls": None}}, "tls"), ({"image": None}, "image"), ({"resources": None}, "resources"),
                 ({"launch": "mpiJob", "nodes": 2, "podDisruptionBudget": {"maxUnavailable": "50%"}, **SSH}, "maxUnavailable"), ({"launcherOptions": ["--help"]}, "launcherOptions"),
                 ({"env": {"LWS_LEADER_ADDRESS": "a"}}, "LWS_LEADER_ADDRESS"), ({"image": {"pullSecrets": [""]}}, "pullSecrets")]  # fmt: skip
        self.assert_refused(wrong)

    def test_refuses_text_that_would_be_more_than_one_value(self):
        for text in ("a: b", "a b", "a #b", "a\nb: c", "a}, b: {c", '"', "{{ .Values }}"):
            for values in ({"image": {"repository": text}}, {"model": {"source": "image", "reference": text}}, {"secrets": {"tls": text}}, {"serviceAccount": {"name": text}},
                           {"priorityClassName": text}):  # fmt: skip
                with self.subTest(values=values), self.assertRaises(helm_python.HelmError):
                    render(values)
        for text in ("/a: b", "/a #b", "/a}, b: {c", '/a "b"', "/{{ .Values }}"):
            (deployment,) = of_kind(render({"model": {"source": "hostPath", "reference": text}}), "Deployment")
            self.assertIn({"name": "model", "hostPath": {"path": text, "type": "Directory"}}, deployment["spec"]["template"]["spec"]["volumes"])
        for values in ({"options": {"log-level": "info\nport = 1"}}, {"options": {"served-model-name": ["a", "b\nport = 1"]}}, {"model": {"source": "hostPath", "reference": "/a\nb: c"}}):
            self.assert_refused([(values, "options" if "options" in values else "reference")])

    def assert_refused(self, wrong):
        for values, name in wrong:
            with self.subTest(values=values), self.assertRaises(helm_python.HelmError) as refused:
                render(values)
            self.assertIn(name, str(refused.exception))

    def test_renders_what_the_golden_files_hold(self):
        for name, values in GOLDENS.items():
            with self.subTest(golden=name):
                self.assertEqual(golden_text(values), (GOLDEN / f"{name}.yaml").read_text(), "chart_test.py --update writes them anew")

    def test_names_every_port_of_a_group_in_the_network_policy(self):
        (policy,) = of_kind(render(merged(LAUNCHES[1], {"devices": {"perNode": 4}})), "NetworkPolicy")
        opened = [(port["port"], port.get("endPort", port["port"])) for rule in policy["spec"]["ingress"] for port in rule["ports"]]
        for wanted in (7999, 8000, 8003, 2222, 24000, 24255, 24300, 24303):
            self.assertTrue(any(first <= wanted <= last for first, last in opened), wanted)
        self.assertFalse(any(first <= 8004 <= last for first, last in opened))
        self.assertFalse(any(first <= 24304 <= last for first, last in opened))

    def test_opens_all_ports_of_a_group_on_gpus_to_itself_alone(self):
        (policy,) = of_kind(render(merged(LAUNCHES[1], DEVICES[1])), "NetworkPolicy")
        group = [rule for rule in policy["spec"]["ingress"] if any(port.get("endPort") == 65535 for port in rule["ports"])]
        self.assertEqual([sorted(peer["podSelector"]["matchLabels"]) for rule in group for peer in rule["from"]], [["app.kubernetes.io/instance", "app.kubernetes.io/name"]])

    def test_passes_options_of_the_launcher_and_variables_to_the_ranks(self):
        extra = {"env": {"NCCL_SOCKET_IFNAME": "eth0", "B": ""}, "launcherOptions": ["--bind-to", "core"]}
        for launch in LAUNCHES:
            for resource in render(merged(launch, extra)):
                for pod in pod_templates(resource):
                    (container,) = pod["spec"]["containers"]
                    variables = {variable["name"]: variable["value"] for variable in container["env"]}
                    self.assertEqual((variables["NCCL_SOCKET_IFNAME"], variables["B"]), ("eth0", ""))
                    if launch:
                        self.assertEqual(variables["RANKS_ENV"], "B NCCL_SOCKET_IFNAME")
                    words = [*container["command"], *container.get("args", [])]
                    self.assertEqual("--bind-to core" in " ".join(words), words[-1] != "worker")

    def test_uses_an_account_that_there_is(self):
        for account, name in (({}, "demo-lockstep"), ({"create": False}, "default"), ({"create": False, "name": "mine"}, "mine"), ({"name": "ours"}, "ours")):
            resources = render({"serviceAccount": account})
            self.assertEqual({pod["spec"]["serviceAccountName"] for resource in resources for pod in pod_templates(resource)}, {name})
            self.assertEqual([made["metadata"]["name"] for made in of_kind(resources, "ServiceAccount")], [name] if account.get("create", True) else [])

    def test_carries_the_rules_and_the_dashboard_of_monitoring(self):
        for name in ("rules.yml", "dashboard.json"):
            self.assertEqual((FOLDER / "files" / name).read_text(), (REPOSITORY / "monitoring" / name).read_text())
        (rule,) = of_kind(render({"monitoring": {"prometheusRule": True}}), "PrometheusRule")
        self.assertEqual(rule["spec"], yaml.safe_load((REPOSITORY / "monitoring/rules.yml").read_text()))

    def test_monitors_every_rank_of_a_pod(self):
        (monitor,) = of_kind(render({"monitoring": {"podMonitor": True}, "devices": {"perNode": 3}}), "PodMonitor")
        self.assertEqual([endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]], ["rank-0", "rank-1", "rank-2"])

    def test_notes_say_how_to_ask(self):
        notes = {text for name, text in CHART.render(values={}, name="demo").items() if name.endswith("NOTES.txt")}.pop()
        self.assertRegex(notes, r"port-forward service/demo-lockstep 8000:80")

    def test_version_is_the_projects(self):
        version = re.search(r"VERSION (\d+\.\d+\.\d+)", (REPOSITORY / "CMakeLists.txt").read_text())[1]
        self.assertEqual((CHART.metadata["version"], CHART.metadata["appVersion"]), (version, version))

    def test_page_of_values_is_current(self):
        self.assertEqual((FOLDER / "VALUES.md").read_text(), page(), "run tests/helm/values_page.py > helm/lockstep/VALUES.md")


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        for golden_name, golden_values in GOLDENS.items():
            (GOLDEN / f"{golden_name}.yaml").write_text(golden_text(golden_values))
    else:
        unittest.main()
