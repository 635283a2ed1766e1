"""What is watched and what watches: a group of two ranks, clients that keep it busy, and a Prometheus that scrapes each second with the rules as they are."""

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests/e2e"))
from group import HOST, LIMIT_SECONDS, Group, call, complete, free_ports, wait_for  # noqa: E402

FOLDER = REPOSITORY / "monitoring"
TOKENS = 24
CLIENTS_A_RANK = 4
# Two requests at a time, so that some wait; a long stall timeout, so that alerts come before the group's end.
OPTIONS = ("--max-num-seqs", "2", "--stall-timeout", "100s")


def start_group(*options, micro_batches=2, **settings):
    """Micro-batches: so that exchanges are split."""
    return Group(*OPTIONS, "--micro-batches", str(micro_batches), *options, **settings)


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

    def wait_for_each(self, expressions, what="data", accepted=bool):
        """Asks each expression again and again until its result was accepted once; some return something only at some times."""
        missing = dict.fromkeys(expressions)

        def nothing_is_missing():
            for expression in list(missing):
                if accepted(self.query(expression)):
                    del missing[expression]
            return not missing

        try:
            wait_for(nothing_is_missing, what)
        except AssertionError as problem:
            raise AssertionError(f"these return no {what}:\n" + "\n".join(missing)) from problem

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


def rule_selectors():
    """Every selector in the rules, such as up or lockstep_up_state{state="ready"}."""
    text = "\n".join(re.findall(r"expr: (.*(?:\n {10}.*)*)", (FOLDER / "rules.yml").read_text()))
    return sorted(set(re.findall(r"\b((?:lockstep[\w:]+|process_\w+|up)\b(?:\{[^}]*\})?)", text)))


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
