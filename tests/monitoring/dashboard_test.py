#!/usr/bin/env python3
"""Goal    The dashboard that is kept is the one that its generator writes, and asks only for families that docs/metrics.md describes.
Method  The generator's output is compared byte by byte; the families of all queries are looked for in the page."""

import itertools
import json
import pathlib
import re
import subprocess
import sys
import unittest

from dashboard_panels import all_panels, queries

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
        expressions = " ".join(query for _, query in queries())
        rules = (FOLDER / "rules.yml").read_text()
        shown = set(re.findall(r"lockstep_\w+", expressions + rules))
        self.assertEqual({name for name in described - elsewhere if not any(word.startswith(name) for word in shown)}, set())
        self.assertEqual({word for word in shown if not any(word.startswith(name) for name in described)}, set())

    def test_has_variables_for_job_and_rank_in_every_query_of_a_family(self):
        for title, query in queries():
            if "lockstep_" in query:
                self.assertIn('job=~"$job",rank=~"$rank"', query, title)

    def test_has_heat_maps_with_a_line_for_each_rank(self):
        lines = [panel for panel in all_panels() if panel["type"] == "status-history"]
        self.assertGreater(len(lines), 5)
        for panel in lines:
            (target,) = panel["targets"]
            self.assertRegex(target["legendFormat"], r"\{\{job\}\} rank \{\{(rank|peer)\}\}", panel["title"])
            by = re.search(r" by \(([^)]*)\)", target["expr"])  # what is not summed up has all labels
            if by:
                self.assertRegex(by[1], r"\bjob, (rank|peer)\b", panel["title"])
            self.assertEqual(panel["fieldConfig"]["defaults"]["color"]["mode"], "continuous-GrYlRd")

    def test_has_a_closed_row_for_each_rank(self):
        (repeated,) = [panel for panel in json.loads(TEXT)["panels"] if panel.get("repeat")]
        self.assertEqual((repeated["repeat"], repeated["collapsed"]), ("rank", True))
        self.assertEqual({panel["type"] for panel in repeated["panels"]}, {"heatmap"})

    def test_has_panels_that_neither_share_a_number_nor_cover_each_other(self):
        panels = [panel for row in json.loads(TEXT)["panels"] for panel in (row, *row.get("panels", []))]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
            beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            self.assertTrue(beside or below, f"{one} and {other}")


if __name__ == "__main__":
    unittest.main()
