#!/usr/bin/env python3
"""Goal    Slurm starts the group by both scripts of docs/examples/: it answers on every node, drains when it is told to or when its time is nearly up, and a
        lost rank ends the job with its status.
Method  A real controller and two nodes on hosts of their own; jobs by sbatch and scancel, as their users send them."""

import os
import re
import shutil
import signal
import sys
import unittest

import cluster as slurm
from hosts_group import BINARY, LAUNCHER, PORT, Stream, call, same_file

EXAMPLES = slurm.REPOSITORY / "docs/examples"
PROMPT = "And the LORD spake unto Moses, saying,"
STREAM_TOKENS = 400
KILLED = "137:0"
# What a rank may warn of here: nobody else reaches these hosts, and both nodes have the same cores.
EXPECTED = re.compile(r"--api-key-file|share")


def setUpModule():
    global cluster
    cluster = slurm.Cluster()
    unittest.addModuleCleanup(cluster.close)


def job_environment():
    """As of a user who has installed lockstep: the programs are on PATH, nothing else says where they are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOCKSTEP_", "OMPI_", "PMIX_"))}
    return {**kept, "PATH": os.pathsep.join([os.path.dirname(BINARY), os.path.dirname(LAUNCHER), os.environ["PATH"]])}


class JobTest(unittest.TestCase):
    def submit(self, script, *options, ranks_per_node=1):
        """A job on both nodes; what is given here instead of in the script is its size."""
        job = slurm.Job(cluster, EXAMPLES / script, f"--ntasks-per-node={ranks_per_node}", "--cpus-per-task=1", *options, environment=job_environment())
        self.addCleanup(self.end, job)
        self.urls = [(cluster.address(node), PORT + rank) for node in slurm.NODES for rank in range(ranks_per_node)]
        for address, port in self.urls:
            job.wait_until(lambda address=address, port=port: self.is_ready(address, port), f"{address}:{port} to be ready")
        return job

    def is_ready(self, address, port):
        try:
            return call(address, "GET", "/ready", port=port, timeout=5)[0] == 200
        except OSError:
            return False

    def end(self, job):
        """What a failed test left; the next one begins with idle nodes."""
        if job.facts()[0] not in slurm.ENDED:
            job.cancel("--signal=KILL", "--full")
        for process in cluster.running():
            os.kill(process, signal.SIGKILL)
        slurm.wait_for(cluster.is_ready, "the nodes to be idle again")

    def assert_ended(self, job, state, exit_code):
        self.assertEqual(job.wait(), (state, exit_code), job.log())
        slurm.wait_for(lambda: not cluster.running(), f"the nodes to be empty, which run {cluster.running()}")

    def assert_drained(self, job):
        self.assert_ended(job, "COMPLETED", "0:0")
        log = job.log()
        self.assertEqual(log.count("the group has ended; bye"), len(self.urls), log)
        complaints = [line for line in log.splitlines() if re.search(r"Z (warning|error|critical) \[rank", line) and not EXPECTED.search(line)]
        self.assertEqual(complaints, [], log)


class ByScript:
    """What both scripts promise."""

    script = ""

    def test_every_rank_of_every_node_answers(self):
        job = self.submit(self.script, ranks_per_node=2)
        answers = [call(address, "POST", "/v1/completions", {"prompt": PROMPT, "max_tokens": 16, "temperature": 0}, port=port) for address, port in self.urls]
        self.assertEqual([status for status, _ in answers], [200] * 4, answers)
        self.assertEqual(len({answer["choices"][0]["text"] for _, answer in answers}), 1, answers)
        job.cancel("--batch", "--signal=USR1")
        self.assert_drained(job)

    def test_a_drain_lets_streams_on_both_nodes_end(self):
        job = self.submit(self.script)
        streams = [Stream(address, prompt=PROMPT, max_tokens=STREAM_TOKENS) for address, _ in self.urls]
        for stream in streams:
            job.wait_until(lambda stream=stream: stream.tokens > 0, "a first token")
        job.cancel("--batch", "--signal=USR1")
        for stream in streams:
            stream.join(timeout=60)
            self.assertEqual((stream.done, stream.error, stream.cut), (True, None, None), job.log())
        self.assert_drained(job)

    def test_a_lost_rank_is_named_and_ends_the_job_with_its_status(self):
        job = self.submit(self.script)
        for process in cluster.network.processes_of(slurm.NODES[1]):
            if same_file(f"/proc/{process}/exe", BINARY):
                os.kill(process, signal.SIGKILL)
        self.assert_ended(job, "FAILED", KILLED)
        self.assertRegex(job.log(), r"error \[rank 0/2\] peer_lost: .*rank 1: .*exit 3")


class BySrun(ByScript, JobTest):
    script = "slurm-srun.sh"

    def test_a_job_drains_before_its_time_is_up(self):
        # Slurm counts in minutes and looks every half of one: the signal comes 45 to 75 s after the start, which is long enough for that.
        job = self.submit(self.script, "--time=3", "--signal=B:USR1@120")
        self.assert_drained(job)

    def test_tasks_without_pmix_say_what_is_missing(self):
        done = cluster.command("srun", "--nodes=2", "--mpi=none", BINARY, check=False)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("start with srun --mpi=pmix, or with mpirun inside the allocation", done.stderr)


class ByMpirun(ByScript, JobTest):
    script = "slurm-mpirun.sh"


if __name__ == "__main__":
    missing = [program for program in slurm.PROGRAMS if shutil.which(program) is None]
    if missing:
        print(f"skipped: {', '.join(missing)} not found: packages.txt lists the packages of Slurm and munge", flush=True)
        sys.exit(slurm.network.SKIPPED)
    slurm.network.enter_cluster()
    unittest.main()
