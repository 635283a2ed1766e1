#!/usr/bin/env python3
"""Goal    What the Containerfile makes serves as another user than root, without capabilities, on a root file system that cannot be written.
Method  Its script's step `runtime` in a fresh Debian root; then the Containerfile's own command and user, by systemd-nspawn with that root read-only; and the chart's launch.sh
        in two of them. The step `build` has image_build_test.py."""

import json
import os
import pathlib
import re
import shutil
import signal
import tempfile
import unittest

from machine import (HAS_PLUGINS, REPOSITORY, ROOTS, Container, Stream, build_package, build_packages, complete, copy_of, descendants, remove_root, run, run_in,
                     status_of, wait_for)

CONTAINERFILE = (REPOSITORY / "Containerfile").read_text()
SCRIPT = REPOSITORY / "packaging/image.sh"
STREAM_TOKENS = 400
MEBIBYTES_MAX = 600  # of the whole root: an image that grows without reason is noticed


def instruction(name):
    """The last one of that name in the Containerfile."""
    return re.findall(rf"^{name} (.*)$", CONTAINERFILE, re.MULTILINE)[-1]


CONFINED = ["--read-only", "--as-pid2", "--user=lockstep", "--drop-capability=all", "--no-new-privileges=yes", "--tmpfs=/tmp:mode=1777"]
CHART = REPOSITORY / "helm/lockstep/files"
PODS = {"demo-0": "10.99.0.1", "demo-0-1": "10.99.0.2"}  # a LeaderWorkerSet's names: leader and worker
SSH_PORT = 2222


def setUpModule():
    """The image's root, made once; each class runs copies of it."""
    global image
    image = copy_of(ROOTS / "base")
    unittest.addModuleCleanup(remove_root, image)
    (image / "packages").mkdir()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(build_package(folder), image / "packages")
    shutil.copy(SCRIPT, image / "packages")
    run_in(image, "/packages/image.sh", "runtime", "/packages")
    shutil.rmtree(image / "packages")


def launcher_of(container):
    """The first process of a pod, which gets what the engine or the preStop hook sends."""
    found = [process for process in descendants(container.process.pid) if b"lockstep-run" in pathlib.Path(f"/proc/{process}/cmdline").read_bytes()]
    return found[0]


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        size = int(run("du", "--summarize", "--block-size=1M", "--one-file-system", image).split()[0])
        unwanted = [path for path in ("usr/bin/systemctl", "etc/ssh/ssh_host_ed25519_key") if (image / path).exists()]
        cls.facts = {"size": size, "unwanted": unwanted, "user": run_in(image, "id", "--user", "lockstep").splitlines()[0]}
        command = [*json.loads(instruction("ENTRYPOINT")), "-n", "2", *json.loads(instruction("CMD"))[2:]]
        cls.container = Container(copy_of(image), *CONFINED, *command, first="lockstepd")
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
        os.kill(launcher_of(self.container), getattr(signal, instruction("STOPSIGNAL")))
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
        self.assertEqual(words, {"mkdir", "rm", "/source/packaging/image.sh", "/packages/image.sh"})


class WithGpus(unittest.TestCase):
    """The variant, as far as it goes without a device: what it lacks is missed by name."""

    def setUp(self):
        self.root = copy_of(ROOTS / "base")
        self.addCleanup(remove_root, self.root)
        (self.root / "packages").mkdir()
        shutil.copy(SCRIPT, self.root / "packages")

    def test_is_refused_without_the_cuda_runtime(self):
        (self.root / "packages/lockstep-cuda_1_amd64.deb").touch()
        with self.assertRaisesRegex(AssertionError, r"RUNTIME_IMAGE needs the runtime library"):
            run_in(self.root, "/packages/image.sh", "runtime", "/packages")

    @unittest.skipUnless(HAS_PLUGINS, "no CUDA toolkit: no plugins")
    def test_with_the_cuda_runtime_it_serves_on_the_cpu_and_misses_the_driver(self):
        shutil.copy(os.environ["LOCKSTEP_CUDART"], self.root / "usr/lib/x86_64-linux-gnu/libcudart.so.13")
        run_in(self.root, "ldconfig")
        with tempfile.TemporaryDirectory() as folder:
            for name, package in build_packages(folder).items():
                if name in ("lockstep", "lockstep-cuda"):
                    shutil.copy(package, self.root / "packages")
        run_in(self.root, "/packages/image.sh", "runtime", "/packages")
        said = run_in(self.root, "lockstepd", "--check", "--device", "auto", options=CONFINED)
        self.assertRegex(said, r"computing on cpu: cuda: no usable GPU: CUDA driver version is insufficient")
        with self.assertRaisesRegex(AssertionError, r"returned 2:\n.*--device cuda: no usable GPU"):
            run_in(self.root, "lockstepd", "--check", "--device", "cuda", options=CONFINED)


class Pods(unittest.TestCase):
    """The chart's launch.sh in two containers of the image, each with a network of its own, as LeaderWorkerSet would start them."""

    def setUp(self):
        for pod in PODS:
            run("ip", "netns", "add", self.network(pod))
            self.addCleanup(run, "ip", "netns", "delete", self.network(pod))
        first, second = (self.network(pod) for pod in PODS)
        run("ip", "-netns", first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second)
        for pod, address in PODS.items():
            run("ip", "-netns", self.network(pod), "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                run("ip", "-netns", self.network(pod), "link", "set", device, "up")
        self.keys = tempfile.TemporaryDirectory()
        self.addCleanup(self.keys.cleanup)
        folder = pathlib.Path(self.keys.name)
        for name in ("id", "host_key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
        (folder / "authorized_keys").write_text((folder / "id.pub").read_text())
        (folder / "known_hosts").write_text("lockstep " + " ".join((folder / "host_key.pub").read_text().split()[:2]) + "\n")

    def network(self, pod):
        return f"lockstep-{os.getpid()}-{pod}"

    def start(self, pod, role, first):
        """A container as the chart's pod: its files mounted as Kubernetes would, readable by the pod's group."""
        root = copy_of(image)
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}.demo.serving {name}\n" for name, address in PODS.items()))
        (root / "etc/lockstep/lockstep.conf").write_text("host = 0.0.0.0\nport = 8000\n")
        shutil.copy(CHART / "launch.sh", root / "etc/lockstep")
        (root / "etc/lockstep/sshd_config").write_text(f"Port {SSH_PORT}\n" + (CHART / "sshd_config").read_text())
        secret = root / "etc/lockstep-ssh"
        shutil.copytree(self.keys.name, secret)
        for path in [secret, *secret.iterdir()]:
            os.chown(path, 0, 10001)
            path.chmod(0o750 if path.is_dir() else 0o440)
        settings = {"LOCKSTEP_CONFIG": "/etc/lockstep/lockstep.conf", "GROUP_NODES": 2, "RANKS_A_NODE": 1, "SSH_PORT": SSH_PORT, "MPI_PORT": 24000, "START_SECONDS": 60,
                    "LWS_LEADER_ADDRESS": "demo-0.demo.serving"}  # fmt: skip
        container = Container(root, *CONFINED, f"--hostname={pod}", *(f"--setenv={name}={value}" for name, value in settings.items()),
                              "bash", "/etc/lockstep/launch.sh", role, first=first, network=f"--network-namespace-path=/run/netns/{self.network(pod)}")  # fmt: skip
        self.addCleanup(container.close)
        return container

    def start_group(self):
        leader = self.start("demo-0", "leader", "bash")  # first, as it may be: it waits for the other's sshd
        worker = self.start("demo-0-1", "worker", "sshd")
        for container in (leader, worker):
            container.enter_network()
            wait_for(lambda: leader.leader() and status_of(8000, "/ready") == 200, "the pod's rank to be ready: " + leader.output())
            answer = complete(8000, prompt="In the beginning", max_tokens=4, temperature=0)
            self.assertEqual(answer.status, 200, answer.text)
        self.assertIn("[rank 1/2]", leader.output())
        return leader, worker

    def test_form_one_group_over_ssh_without_root_and_drain_together(self):
        leader, worker = self.start_group()
        os.kill(launcher_of(leader), signal.SIGUSR1)
        self.assertEqual(leader.process.wait(timeout=60), 0, leader.output())
        self.assertEqual(worker.ranks(), [])

    def test_drain_together_when_the_workers_hook_asks(self):
        leader, worker = self.start_group()
        stream = Stream(8000, prompt="In the beginning", max_tokens=STREAM_TOKENS, temperature=0, ignore_eos=True)  # the worker's rank, in whose network this thread is
        self.addCleanup(stream.close)
        run("nsenter", f"--target={worker.ranks()[0]}", "--mount", "--pid", "--net", "--root", "--setuid=10001", "--setgid=10001", "bash", "/etc/lockstep/launch.sh", "drain", "0")
        self.assertEqual(worker.ranks(), [], "the hook waits for their end")
        self.assertEqual(worker.name_of(worker.leader()), "sshd", "which has kept them connected")
        self.assertEqual(list(stream)[-1]["choices"][0]["finish_reason"], "length")
        self.assertTrue(stream.done)
        self.assertEqual(leader.process.wait(timeout=60), 0, leader.output())


if __name__ == "__main__":
    unittest.main()
