#!/usr/bin/env python3
"""Goal    Every alert fires when it should and only then; the rules are well formed and say what to do.
Method  promtool check rules; and promtool test rules on the series of rule_cases.py, once each that must fire and must not. That real daemons give what the
        rules ask for is shown by prometheus_test.py."""

import json
import pathlib
import re
import subprocess
import tempfile
import unittest

from rule_cases import CASES

RULES = pathlib.Path(__file__).resolve().parents[2] / "monitoring/rules.yml"


def promtool(*arguments, folder=None):
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, cwd=folder)


def fires(alert, minute, series):
    """Whether `alert` fires, told by promtool: it is asked to expect no alert, and complains when there is one."""
    with tempfile.TemporaryDirectory() as folder:
        test = {"rule_files": [str(RULES)], "evaluation_interval": "1m",
                "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": [{"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []}]}]}  # fmt: skip
        pathlib.Path(folder, "test.yml").write_text(json.dumps(test))  # JSON is YAML
        result = promtool("test", "rules", f"{folder}/test.yml")
    if result.returncode == 0:
        return False
    if "got:[" not in re.sub(r"\s", "", result.stdout + result.stderr):
        raise AssertionError(result.stdout + result.stderr)
    return True


class Rules(unittest.TestCase):
    def test_are_well_formed(self):
        result = promtool("check", "rules", RULES)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_are_found_by_the_configuration_to_start_from(self):
        result = promtool("check", "config", RULES.parent / "prometheus.yml")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("1 rule files found", result.stdout)

    def test_have_a_case_for_every_alert(self):
        self.assertEqual({case[0] for case in CASES}, set(re.findall(r"- alert: (\w+)", RULES.read_text())))

    def test_name_a_severity_and_an_action_each(self):
        for text in RULES.read_text().split("- alert: ")[1:]:
            self.assertRegex(text, r"severity: (critical|warning)")
            self.assertRegex(text, r"summary: .*\n +action: ")

    def test_fire_when_they_should(self):
        for alert, minute, firing, _ in CASES:
            with self.subTest(alert=alert):
                self.assertTrue(fires(alert, minute, firing))

    def test_do_not_fire_when_they_should_not(self):
        for alert, minute, _, silent in CASES:
            with self.subTest(alert=alert):
                self.assertFalse(fires(alert, minute, silent))


if __name__ == "__main__":
    unittest.main()
