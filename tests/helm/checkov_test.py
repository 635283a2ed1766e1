#!/usr/bin/env python3
"""Goal    What the chart renders keeps the habits of security that checkov knows, but for those that are explained here.
Method  checkov on the golden values. It does not know the custom resources: the pods in them are shown to it as pods of their own."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import yaml
from chart_test import GOLDENS, render
from custom_resources import pod_templates, schema_of

LIMIT_SECONDS = 300
# What fails and stays, and why. An explanation that is not needed any more fails the test too.
EXPLAINED = {
    "CKV_K8S_11": "no CPU limit: it would throttle a rank, and with it the whole group in each step",
    "CKV_K8S_15": "the pull policy is the user's (image.pullPolicy): an image with a digest need not be pulled again",
    "CKV_K8S_43": "the digest is the user's (image.digest): the chart cannot know it",
}
DIGEST = "sha256:" + "0" * 64


def shown(resources):
    """The resources; of those that checkov does not know, the pods in them."""
    for resource in resources:
        if not schema_of(resource):
            yield resource
            continue
        for number, pod in enumerate(pod_templates(resource)):
            labels = {**resource["metadata"]["labels"], **pod["metadata"].get("labels", {})}
            metadata = {"name": f"{resource['metadata']['name']}-{number}", "namespace": resource["metadata"]["namespace"], "labels": labels}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}


def check(cases):
    """checkov's results of {name: values}."""
    with tempfile.TemporaryDirectory() as folder:
        for name, values in cases.items():
            pathlib.Path(folder, f"{name}.yaml").write_text(yaml.safe_dump_all(shown(render(values)), sort_keys=False))
        # --skip-download: the checks are in the package; what it would fetch are links to read.
        command = [sys.executable, "-m", "checkov.main", "--directory", folder, "--framework", "kubernetes", "--skip-download", "--output", "json"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("BC_", "CKV_", "CHECKOV_"))}
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False, cwd=folder, env=environment)
    try:
        return json.loads(done.stdout)["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise AssertionError(f"checkov returned {done.returncode}:\n{done.stdout}{done.stderr}") from error


def described(failed):
    return "\n".join(f"{found['check_id']} {found['check_name']}: {found['resource']} in {found['file_path']}" for found in failed)


class Checkov(unittest.TestCase):
    def test_fails_nothing_that_is_not_explained(self):
        results = check(GOLDENS)
        self.assertEqual({found["file_path"] for found in results["passed_checks"]}, {f"/{name}.yaml" for name in GOLDENS})
        unexplained = [found for found in results["failed_checks"] if found["check_id"] not in EXPLAINED]
        self.assertEqual(unexplained, [], described(unexplained))
        failed = {found["check_id"] for found in results["failed_checks"]}
        self.assertEqual(set(EXPLAINED) - failed, set(), "explained, but nothing fails it any more")

    def test_has_nothing_to_say_of_an_image_that_is_named_by_its_digest(self):
        failed = check({"pod": {"image": {"digest": DIGEST, "pullPolicy": "Always"}}})["failed_checks"]
        self.assertEqual({found["check_id"] for found in failed}, {"CKV_K8S_11"}, described(failed))


if __name__ == "__main__":
    unittest.main()
