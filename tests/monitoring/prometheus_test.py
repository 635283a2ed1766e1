#!/usr/bin/env python3
"""Goal    What panels and alerts ask for, a running group gives; what clients saw is what Prometheus sums up; a stopped rank is named by the right alerts.
Method  A real Prometheus with the rules as they are scrapes two ranks under load each second; every query of the dashboard, and every selector of the rules,
        is asked; then one rank is stopped."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
import urllib.parse
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests/e2e"))
from group import HOST, LIMIT_SECONDS, Group, call, complete, descendants, free_ports, wait_for  # noqa: E402

FOLDER = REPOSITORY / "monitoring"
TOKENS = 24
CLIENTS_A_RANK = 4
# Two requests at a time, so that some wait; micro-batches, so that exchanges are split; a long stall timeout, so that alerts come before the group's end.
OPTIONS = ("--max-num-seqs", "2", "--micro-batches", "2", "--stall-timeout", "100s")


class Prometheus:
    """A server that scrapes and evaluates each second."""

    def __init__(self, ports):
        self.folder = tempfile.TemporaryDirectory()
        self.port = free_ports(1)
        configuration = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}, "rule_files": [str(FOLDER / "rules.yml")],
                         "scrape_configs": [{"job_name": "lockstep", "static_configs": [{"targets": [f"{HOST}:{port}" for port in ports]}]}]}  # fmt: skip
        pathlib.Path(self.folder.name, "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
        command = ["prometheus", f"--config.file={self.folder.name}/prometheus.yml", f"--storage.tsdb.path={self.folder.name}/data", f"--web.listen-address={HOST}:{self.port}"]
        self.log = open(f"{self.folder.name}/log", "w+")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        wait_for(self.is_ready, "Prometheus to be ready")

    def is_ready(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise AssertionError(f"prometheus left with {self.process.returncode}:\n{self.log.read()}")
        with contextlib.suppress(OSError):
            return call(self.port, "GET", "/-/ready").status == 200
        return False

    def ask(self, path, **parameters):
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=LIMIT_SECONDS) as response:
            return json.load(response)["data"]

    def query(self, expression):
        """[(labels, value)] now; NaN counts as no value."""
        found = self.ask("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found if series["value"][1] != "NaN"]

    def total(self, expression):
        return sum(value for _, value in self.query(expression))

    def firing(self):
        """[labels] of the alerts that fire."""
        return [alert["labels"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=LIMIT_SECONDS)
        self.log.close()
        self.folder.cleanup()


class Load:
    """Clients that ask until they are told to stop, and count what they got."""

    def __init__(self, ports):
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.answers = self.tokens = 0
        self.problems = []
        self.threads = [threading.Thread(target=self.ask, args=(port,)) for port in ports for _ in range(CLIENTS_A_RANK)]
        for thread in self.threads:
            thread.start()

    def ask(self, port):
        while not self.stopping.is_set():
            try:
                answer = complete(port, prompt="And God said, Let there be light", max_tokens=TOKENS, ignore_eos=True)
                with self.lock:
                    self.answers += 1
                    self.tokens += answer.json["usage"]["completion_tokens"]
            except Exception as problem:  # a thread's exception would be lost
                self.problems.append(repr(problem))
                return

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


def panel_queries():
    """[(panel, query)] with Grafana's variables filled in."""
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "30s").replace("$job", ".*").replace("$rank", ".*")


def rule_selectors():
    """Every selector in the rules, such as up or lockstep_up_state{state="ready"}."""
    text = "\n".join(re.findall(r"expr: (.*(?:\n {10}.*)*)", (FOLDER / "rules.yml").read_text()))
    return sorted(set(re.findall(r"\b((?:lockstep[\w:]+|process_\w+|up)\b(?:\{[^}]*\})?)", text)))


class RealPrometheus(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.group = Group(*OPTIONS)
        cls.addClassCleanup(cls.group.close)
        cls.prometheus = Prometheus(cls.group.ports)
        cls.addClassCleanup(cls.prometheus.close)
        cls.load = Load(cls.group.ports)
        cls.addClassCleanup(cls.load.stop)

    def wait_for_data(self, expressions):
        """Each expression must return something at some time under load; all are asked again and again until then."""
        missing = dict.fromkeys(expressions)

        def nothing_is_missing():
            for expression in list(missing):
                if self.prometheus.query(expression):
                    del missing[expression]
            return not missing

        try:
            wait_for(nothing_is_missing, "data")
        except AssertionError:
            self.fail("these return nothing:\n" + "\n".join(missing))

    def test_1_every_query_of_the_dashboard_returns_data(self):
        self.assertGreater(len(list(panel_queries())), 30)
        self.wait_for_data([query for _, query in panel_queries()])

    def test_2_every_selector_of_the_rules_returns_data(self):
        selectors = rule_selectors()
        self.assertIn('lockstep_up_state{state="ready"}', selectors)
        self.assertIn("up", selectors)
        self.wait_for_data(selectors)

    def test_3_no_alert_fires_under_load(self):
        self.assertEqual(self.prometheus.firing(), [])

    def test_4_counters_summed_over_ranks_are_what_clients_saw(self):
        self.load.stop()
        self.assertEqual(self.load.problems, [])
        self.assertGreater(self.load.answers, 2 * CLIENTS_A_RANK)
        expected = {
            "lockstep_generated_tokens_total": self.load.tokens,
            "lockstep_requests_finished_total": self.load.answers,
            'lockstep_http_requests_total{route="/v1/completions",code="200"}': self.load.answers,
            "lockstep_request_duration_seconds_count": self.load.answers,
        }
        for expression, value in expected.items():
            wait_for(lambda expression=expression, value=value: self.prometheus.total(expression) == value, f"{expression} to be {value}, is {self.prometheus.total(expression)}")

    def test_5_a_stopped_rank_is_named_by_the_right_alerts(self):
        victim = self.rank_process(1)
        os.kill(victim, signal.SIGSTOP)
        self.addCleanup(os.kill, victim, signal.SIGKILL)
        for alert, labels in (("LockstepPeerSilent", {"peer": "1", "rank": "0"}), ("LockstepRankMissing", {"instance": f"{HOST}:{self.group.port + 1}"}),
                              ("LockstepStepStalled", {"rank": "0"})):  # fmt: skip
            wait_for(lambda alert=alert, labels=labels: self.fires(alert, labels), f"{alert} with {labels}")
        self.assertFalse(self.fires("LockstepRankMissing", {"instance": f"{HOST}:{self.group.port}"}))

    def fires(self, alert, labels):
        return any(found["alertname"] == alert and labels.items() <= found.items() for found in self.prometheus.firing())

    def rank_process(self, rank):
        for process in descendants(self.group.process.pid):
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{process}/comm").read_text().strip() == "lockstepd":
                    environment = pathlib.Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
                    if f"OMPI_COMM_WORLD_RANK={rank}".encode() in environment:
                        return process
        raise AssertionError(f"no process of rank {rank}")


if __name__ == "__main__":
    unittest.main()
