#!/usr/bin/env python3
"""Goal    The dashboard that is kept is the one that its generator writes, and asks only for families that docs/metrics.md describes.
Method  The generator's output is compared byte by byte; the families of all queries are looked for in the page."""

import json
import pathlib
import re
import subprocess
import sys
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "monitoring"
TEXT = (FOLDER / "dashboard.json").read_text()


class Dashboard(unittest.TestCase):
    def test_is_what_its_generator_writes(self):
        made = subprocess.run([sys.executable, "-B", FOLDER / "make_dashboard.py"], capture_output=True, text=True, timeout=60, check=True).stdout
        self.assertEqual(TEXT, made, "run monitoring/make_dashboard.py > monitoring/dashboard.json")

    def test_has_every_family_of_the_documentation_on_some_panel_or_says_why_not(self):
        # Facts of a build, what the service manager sees, and figures of the process that Grafana's process dashboards show.
        elsewhere = {"lockstep_build_info", "lockstep_config_info", "lockstep_watchdog_pings_total", "lockstep_http_sends_total", "lockstep_http_sent_bytes_total"}
        described = set(re.findall(r"^\| `(lockstep_\w+)`", (REPOSITORY / "docs/metrics.md").read_text(), re.MULTILINE))
        expressions = " ".join(target["expr"] for panel in json.loads(TEXT)["panels"] for target in panel.get("targets", []))
        rules = (FOLDER / "rules.yml").read_text()
        shown = set(re.findall(r"lockstep_\w+", expressions + rules))
        self.assertEqual({name for name in described - elsewhere if not any(word.startswith(name) for word in shown)}, set())
        self.assertEqual({word for word in shown if not any(word.startswith(name) for name in described)}, set())

    def test_has_variables_for_job_and_rank_in_every_query_of_a_family(self):
        for panel in json.loads(TEXT)["panels"]:
            for target in panel.get("targets", []):
                if "lockstep_" in target["expr"]:
                    self.assertIn('job=~"$job",rank=~"$rank"', target["expr"], panel["title"])


if __name__ == "__main__":
    unittest.main()
