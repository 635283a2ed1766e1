#!/usr/bin/env python3
"""Goal    What the Containerfile makes serves as another user than root, without capabilities, on a root file system that cannot be written.
Method  Its script's step `runtime` in a fresh Debian root; then the Containerfile's own command and user, by systemd-nspawn with that root read-only."""

import json
import os
import pathlib
import re
import shutil
import signal
import tempfile
import unittest

from machine import REPOSITORY, ROOTS, Container, Stream, build_package, complete, copy_of, descendants, run, run_in, status_of, wait_for

CONTAINERFILE = (REPOSITORY / "Containerfile").read_text()
SCRIPT = REPOSITORY / "packaging/image.sh"
STREAM_TOKENS = 400
MEBIBYTES_MAX = 600  # of the whole root: an image that grows without reason is noticed


def instruction(name):
    """The last one of that name in the Containerfile."""
    return re.findall(rf"^{name} (.*)$", CONTAINERFILE, re.MULTILINE)[-1]


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = copy_of(ROOTS / "base")
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(build_package(folder), cls.root / "lockstep.deb")
        shutil.copy(SCRIPT, cls.root / "image.sh")
        run_in(cls.root, "/image.sh", "runtime", "/lockstep.deb")
        size = int(run("du", "--summarize", "--block-size=1M", "--one-file-system", cls.root).split()[0])
        unwanted = [path for path in ("lockstep.deb", "usr/bin/systemctl", "etc/ssh/ssh_host_ed25519_key") if (cls.root / path).exists()]
        user = run_in(cls.root, "id", "--user", "lockstep").splitlines()[0]
        cls.facts = {"size": size, "unwanted": unwanted, "user": user}
        command = [*json.loads(instruction("ENTRYPOINT")), "-n", "2", *json.loads(instruction("CMD"))[2:]]
        cls.container = Container(cls.root, "--read-only", "--as-pid2", "--user=lockstep", "--drop-capability=all", "--no-new-privileges=yes", "--tmpfs=/tmp:mode=1777",
                                  *command, first="lockstepd")  # fmt: skip
        cls.addClassCleanup(cls.container.close)
        for port in (8000, 8001):
            wait_for(lambda port=port: cls.container.leader() and status_of(port, "/ready") == 200, f"port {port} to be ready")

    def test_serves_and_drains_read_only_and_as_nobody_in_particular(self):
        self.assertEqual(complete(8001, prompt="In the beginning", max_tokens=4).status, 200)
        for process in self.container.ranks():
            status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines() if ":\t" in line)
            self.assertEqual(status["Uid"].split(), [self.facts["user"]] * 4)
            self.assertEqual((int(status["CapEff"], 16), status["NoNewPrivs"]), (0, "1"))
        stream = Stream(8000, prompt="In the beginning", max_tokens=STREAM_TOKENS, temperature=0, ignore_eos=True)
        events = iter(stream)
        next(events)
        launchers = [process for process in descendants(self.container.process.pid) if "lockstep-run" in pathlib.Path(f"/proc/{process}/cmdline").read_text()]
        # The engine sends STOPSIGNAL to the first process, which is the launcher.
        os.kill(launchers[0], getattr(signal, instruction("STOPSIGNAL")))
        self.assertEqual(list(events)[-1]["choices"][0]["finish_reason"], "length")
        stream.close()
        self.assertEqual(self.container.process.wait(timeout=60), 0, self.container.output())

    def test_is_of_the_user_that_the_containerfile_names(self):
        self.assertEqual(instruction("USER"), f"{self.facts['user']}:{self.facts['user']}")

    def test_holds_no_service_manager_no_host_keys_and_no_package_files(self):
        self.assertEqual(self.facts["unwanted"], [])
        self.assertLess(self.facts["size"], MEBIBYTES_MAX)

    def test_containerfile_runs_the_script_and_nothing_else(self):
        steps = re.findall(r"^RUN (.*?[^\\])$", CONTAINERFILE.replace("\\\n", " "), re.MULTILINE)
        words = {part.strip().split()[0] for step in steps for part in step.split("&&")}
        self.assertEqual(words, {"mkdir", "rm", "mv", "/source/packaging/image.sh", "/packages/image.sh"})


if __name__ == "__main__":
    unittest.main()
