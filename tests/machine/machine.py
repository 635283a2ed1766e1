"""A Debian in a folder, booted by systemd-nspawn, with a network of its own; and the packages to put on it."""

import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BUILD = pathlib.Path(os.environ["LOCKSTEP_BUILD"])
ROOTS = BUILD / "machine"
HAS_PLUGINS = os.environ["LOCKSTEP_PLUGINS"] == "1"  # whether the build made lockstep-cuda
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 120
CLONE_NEWNET = 0x40000000

sys.path.insert(0, str(REPOSITORY / "tests/e2e"))
from group import call, complete, descendants, Stream, status_of, wait_for  # noqa: E402, F401  # for those who import this

NSPAWN = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit"]


def run(*command, limit=LIMIT_SECONDS, check=True, **options):
    """Runs a command of the host; returns what it printed, or fails with it."""
    result = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                            timeout=limit, check=False, **options)  # fmt: skip
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))} returned {result.returncode}:\n{result.stdout}")
    return result.stdout


def run_in(root, *command, options=(), limit=600):
    """Runs a command in a root that is not booted, with /proc and /dev as in a container."""
    return run(*NSPAWN, "--pipe", f"--directory={root}", "--resolv-conf=copy-host", *options, *command, limit=limit)


def copy_of(root):
    """A copy of a root that the caller may change, and deletes."""
    folder = tempfile.mkdtemp(dir=ROOTS, prefix="copy.")
    run("cp", "-a", "--reflink=auto", f"{root}/.", folder)
    return pathlib.Path(folder)


def remove_root(root):
    shutil.rmtree(root)


def packages_in(folder):
    """{name: path} of the Debian packages in a folder."""
    return {path.name.split("_")[0]: path for path in pathlib.Path(folder).glob("*.deb")}


def build_packages(folder, version=None):
    """Makes all packages in `folder`; another version has the same content, and goes with the others of that version."""
    define = []
    if version:
        define = ["-D", f"CPACK_PACKAGE_VERSION={version}", "-D", f"CPACK_DEBIAN_CUDA_PACKAGE_DEPENDS=lockstep (= {version})"]
    run("cpack", "--config", BUILD / "CPackConfig.cmake", "-B", folder, *define, cwd=BUILD, limit=600)
    return packages_in(folder)


def build_package(folder, version=None):
    """The daemon's alone."""
    return build_packages(folder, version)["lockstep"]


class Container:
    """Runs `command` in `root`, which it takes over and deletes, with a network of its own. close() ends it and leaves nothing behind."""

    def __init__(self, root, *command, first, network="--private-network"):
        """`first` is the name of the process that shows that the container is there."""
        self.root = root
        self.first = first
        self.log = tempfile.TemporaryFile(mode="w+")
        command = [*NSPAWN, network, f"--directory={self.root}", *command]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        self.home_network = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            wait_for(lambda: self.leader() is not None, "the container's first process")
            self.wait_until_up()
            self.enter_network()
        except BaseException:
            self.close()
            raise

    def wait_until_up(self):
        """For those that have to boot."""

    def output(self):
        self.log.seek(0)
        return self.log.read()

    def leader(self):
        """The container's first process, by the host's number."""
        if self.process.poll() is not None:
            raise AssertionError(f"systemd-nspawn left with {self.process.returncode}:\n{self.output()}")
        found = [process for process in descendants(self.process.pid) if self.name_of(process) == self.first]
        return found[0] if found else None

    @staticmethod
    def name_of(process):
        with contextlib.suppress(OSError):
            return pathlib.Path(f"/proc/{process}/comm").read_text().strip()
        return ""

    def enter_network(self):
        """From here on this thread's connections are made inside the machine."""
        with open(f"/proc/{self.leader()}/ns/net", "rb") as network:
            self.set_network(network.fileno())

    @staticmethod
    def set_network(descriptor):
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def ranks(self):
        """The daemons' processes, by the host's numbers."""
        return sorted(process for process in descendants(self.process.pid) if self.name_of(process) == "lockstepd")

    def close(self):
        self.set_network(self.home_network)
        os.close(self.home_network)
        if self.process.poll() is None:
            doomed = descendants(self.process.pid)
            for process in [*doomed[:1], self.process.pid]:  # its process 1 takes all others along
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self.process.wait()
        self.log.close()
        deadline = time.monotonic() + LIMIT_SECONDS
        while self.root.exists():  # its last mounts go with its last process
            with contextlib.suppress(OSError):
                remove_root(self.root)
            if time.monotonic() > deadline:
                raise AssertionError(f"cannot remove {self.root}")


class Machine(Container):
    """A copy of the root `booting`, booted."""

    def __init__(self):
        super().__init__(copy_of(ROOTS / "booting"), "--boot", first="systemd")

    def wait_until_up(self):
        wait_for(self.has_booted, "systemd in the machine to be up")

    def has_booted(self):
        return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

    def run(self, *command, check=True):
        entered = ["nsenter", f"--target={self.leader()}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--"]
        return run(*entered, *command, check=check)

    def write(self, path, text):
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def install(self, *packages):
        for package in packages:
            shutil.copy(package, self.root / "root")
        return self.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--install", *(f"/root/{package.name}" for package in packages))

    def property(self, name, unit="lockstep"):
        return self.run("systemctl", "show", "--property", name, "--value", unit).strip()

    def cursor(self):
        """Where the journal ends now."""
        return self.run("journalctl", "--show-cursor", "--lines=0").split("cursor:")[1].strip()

    def journal(self, cursor, unit="lockstep"):
        return self.run("journalctl", "--unit", unit, "--after-cursor", cursor, "--output=cat", "--no-pager")
