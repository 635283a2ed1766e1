"""Hosts of our own on one machine: network namespaces on one switch, each with a host name, a /tmp, a clock and a core to itself.

Everything lives in a PID namespace whose first process is the test: however the test ends, the kernel ends every process on these hosts, and with the last one the
namespaces, interfaces and rates are gone. Nothing is left in /run/netns, on disk or in the machine's own network. Needs root, in a plain container too.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

SKIPPED = 77  # ctest's SKIP_RETURN_CODE of these tests
CLUSTER_MARK = "LOCKSTEP_TEST_IN_CLUSTER"
NAMESPACES = ["--net", "--uts", "--mount", "--pid", "--fork"]
SHARED = pathlib.Path("/mnt")  # the one folder that all hosts see as one, as a network file system would be
AGENT = pathlib.Path(__file__).resolve().parent / "launch_agent"
REPOSITORY = AGENT.parents[2]
KEPT_REPOSITORY = SHARED / "repository"  # the clone, where a host's own /tmp cannot hide it
# An empty /tmp; but a clone that lies in /tmp stays where it is.
OWN_TMP = "mount -t tmpfs tmpfs /tmp"
if REPOSITORY.is_relative_to("/tmp"):
    OWN_TMP += f" && mkdir -p '{REPOSITORY}' && mount --bind {KEPT_REPOSITORY} '{REPOSITORY}'"
# Linux counts tbf's burst in time at line rate: less than a timer tick's worth of bytes would throttle below the rate.
BURST_BYTES = 64 * 1024
LATENCY = "50ms"
# TCP's large packets stay below the burst, headers of what a network card would make of them included: tbf cuts larger ones up itself, which took a fifth of a host's
# core. And hardly below it: a card takes 64 KiB at once too, and each packet is an interrupt or two, on whatever core the sender has.
GSO_BYTES = BURST_BYTES * 15 // 16
PR_SET_PDEATHSIG = 1
# An interface that comes before the one that leads to the others, with one address on every host: what container engines set up.
DECOY = "ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up"


def run(*command):
    """Runs a tool of iproute2 or util-linux; what it says on an error is in the exception."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} returned {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def enter_cluster():
    """Starts this program again as the first process of its own namespaces. Where they are not allowed: says why and leaves with SKIPPED."""
    if os.environ.get(CLUSTER_MARK):
        if os.getpid() != 1:
            sys.exit(f"{CLUSTER_MARK} is set, but this is not the first process of a PID namespace: unset it")
        del os.environ[CLUSTER_MARK]
        prepare_cluster()
        return
    probe = subprocess.run(["unshare", *NAMESPACES, "--time", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        print(f"skipped: no namespaces here: {probe.stderr.strip()}; needs root with CAP_SYS_ADMIN (docker run --privileged)", flush=True)
        sys.exit(SKIPPED)
    # The child is killed with us; and as the first process of its PID namespace it takes all others with it.
    os.execvpe("unshare", ["unshare", *NAMESPACES, "--mount-proc", "--kill-child", sys.executable, "-B", *sys.argv], {**os.environ, CLUSTER_MARK: "1"})


def prepare_cluster():
    # unshare waits for us and is waited for by ctest: a SIGTERM to the first process of a namespace is ignored unless it is handled.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "tmpfs", "tmpfs", SHARED)
    KEPT_REPOSITORY.mkdir()
    run("mount", "--bind", REPOSITORY, KEPT_REPOSITORY)
    run("sh", "-c", OWN_TMP)
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "switch", "type", "bridge")
    run("ip", "addr", "add", f"{address_of(254)}/24", "dev", "switch")
    run("ip", "link", "set", "switch", "up")


def address_of(number):
    return f"10.77.0.{number}"


def die_with_parent():
    """For Popen's preexec_fn."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def namespace_of(process):
    """A number for the process's network; None when there is no such process any more."""
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{process}/ns/net").st_ino
    return None


class Host:
    """One host: a process that only holds the namespaces, and what was entered into them."""

    def __init__(self, name, number, core, monotonic_offset_s, decoy):
        self.name = name
        self.address = address_of(number)
        self.core = core
        self.port_name = f"to-{name}"
        inside = f"hostname {name} && {OWN_TMP} && ip link set lo up && {DECOY if decoy else 'true'} && echo made && exec sleep infinity"
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "--mount", "--time", "--monotonic", str(monotonic_offset_s), "--fork", "--kill-child", "sh", "-c", inside],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)  # fmt: skip
        if self.holder.stdout.readline() != "made\n":
            self.close()
            raise RuntimeError(f"host {name}: its namespaces could not be made")
        # Time namespaces hold for children only: the process to enter is the one that unshare forked.
        children = pathlib.Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children").read_text().split()
        self.process = int(children[0])

    def command(self, *command):
        """What to run for `command` to run on this host."""
        return ["nsenter", "--target", str(self.process), "--net", "--uts", "--mount", "--time", "--", "taskset", "--cpu-list", str(self.core), *map(str, command)]

    def run(self, *command):
        return run(*self.command(*command))

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


class Network:
    """`names` on one switch, which also reaches us. `rate`: of each host's sending, as tc writes it ("100mbit"); None is what the machine can do.

    Each host has a core to itself as long as there are enough: two ranks on one core take 8 ms for an all-reduce that otherwise takes some µs.
    """

    def __init__(self, names=("a", "b"), rate=None, monotonic_offsets_s=None, decoy=False):
        self.folder = tempfile.TemporaryDirectory(dir=SHARED)
        cores = sorted(os.sched_getaffinity(0))
        self.hosts = {}
        self.write_names(names)
        try:
            for index, name in enumerate(names):
                self.add(index + 1, name, cores[index % len(cores)], (monotonic_offsets_s or {}).get(name, 0), decoy, rate)
        except BaseException:
            self.close()
            raise
        os.environ["HOSTS_OF_TEST"] = self.folder.name

    def add(self, number, name, core, monotonic_offset_s, decoy, rate):
        host = Host(name, number, core, monotonic_offset_s, decoy)
        self.hosts[name] = host
        run("ip", "link", "add", host.port_name, "type", "veth", "peer", "name", "eth0", "netns", host.process)
        run("ip", "link", "set", host.port_name, "master", "switch", "up")
        host.run("ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "gso_max_size", GSO_BYTES, "up")
        pathlib.Path(self.folder.name, name).write_text(f"{host.process} {host.core}\n")
        if rate:
            self.limit(name, rate)

    def write_names(self, names):
        """In place of /etc/hosts, for this test and, as their mount namespaces are copies of ours, for all hosts."""
        lines = ["127.0.0.1 localhost", *(f"{address_of(index + 1)} {name}" for index, name in enumerate(names))]
        table = pathlib.Path(self.folder.name, "names")
        table.write_text("\n".join(lines) + "\n")
        run("mount", "--bind", table, "/etc/hosts")

    def limit(self, name, rate, burst_bytes=BURST_BYTES):
        """Limits what `name` sends."""
        self.hosts[name].run("tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", burst_bytes, "latency", LATENCY)

    def unlimit(self, name):
        """Takes back what `limit` did, if it did."""
        with contextlib.suppress(RuntimeError):
            self.hosts[name].run("tc", "qdisc", "del", "dev", "eth0", "root")

    def cut(self, name):
        """Takes the host off the switch: what either side sends is lost without a word, and both see their link up."""
        run("ip", "link", "set", self.hosts[name].port_name, "nomaster")

    def unplug(self, name):
        """Takes the host's interface down."""
        self.hosts[name].run("ip", "link", "set", "eth0", "down")

    def kill_processes(self, name):
        """Ends every process on the host, as if its power had failed, but for the one that holds the namespaces."""
        kept = {self.hosts[name].holder.pid, self.hosts[name].process}
        for process in self.processes_of(name):
            if process not in kept:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def processes_of(self, name):
        """All process ids on the host; they are common to all hosts."""
        wanted = namespace_of(self.hosts[name].process)
        return [int(entry.name) for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit() and namespace_of(entry.name) == wanted]

    def bytes_sent(self, name):
        """By the link's own counter."""
        # Not from /sys, which shows the interfaces of whoever mounted it.
        return json.loads(self.hosts[name].run("ip", "-json", "-statistics", "link", "show", "dev", "eth0"))[0]["stats64"]["tx"]["bytes"]

    def close(self):
        for host in self.hosts.values():
            with contextlib.suppress(RuntimeError):  # it may not be there yet
                run("ip", "link", "del", host.port_name)  # now, and not when the kernel comes to the namespace's end
            host.close()
        run("umount", "/etc/hosts")
        self.folder.cleanup()
