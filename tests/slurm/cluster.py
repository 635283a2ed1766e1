"""A Slurm of our own: a controller and two nodes on the hosts of tests/hosts/network.py, with everything they write in a folder that ends with the test."""

import os
import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "tests/hosts"), str(REPOSITORY / "tests/e2e")]
import network  # noqa: E402
from group import wait_for  # noqa: E402

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
# Beside lockstepd, what the two ways to start it leave running when they go wrong.
LAUNCHED = {"lockstepd", "lockstep-run", "srun", "mpirun", "orted"}
CONTROLLER, NODES = "control", ("a", "b")
CPUS_PER_NODE = 2
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}  # there are more states than these and RUNNING: SIGNALING, COMPLETING
# No cgroups: a container may have none to give. Nodes promise cores that they do not have. Jobs are looked at when they come, and not every few seconds.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
SwitchType=switch/none
MpiDefault=none
SchedulerParameters=sched_min_interval=1000,batch_sched_delay=0
MailProg=/bin/true
NodeName={nodes} CPUs={cpus}
PartitionName=test Nodes={nodes} Default=YES
"""


class Cluster:
    """Ready when made. close() ends its daemons; whatever they started ends with the test's PID namespace at the latest."""

    def __init__(self):
        self.network = network.Network((CONTROLLER, *NODES))
        self.daemons = []
        self.folder = network.SHARED / "slurm"  # for all to enter: munged wants its socket where everybody may come
        for name in ("munge", "state", *NODES):
            (self.folder / name).mkdir(parents=True)
        configuration = self.folder / "slurm.conf"
        configuration.write_text(CONFIGURATION.format(folder=self.folder, controller=CONTROLLER, nodes=",".join(NODES), cpus=CPUS_PER_NODE))
        os.environ["SLURM_CONF"] = str(configuration)
        try:
            self.start_munge()
            self.start(CONTROLLER, "slurmctld", "-D")
            for name in NODES:
                self.start(name, "slurmd", "-D", "-N", name)
            wait_for(self.is_ready, f"the nodes to be idle in {self.folder}")
        except BaseException as error:
            print(self.logs(), file=sys.stderr)
            self.close()
            raise error

    def start_munge(self):
        """One for all hosts: they share its socket's folder, as they have one kernel."""
        folder = self.folder / "munge"
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        self.start(CONTROLLER, "munged", "--foreground", "--key-file", self.folder / "munge.key", "--socket", folder / "socket",
                   "--pid-file", folder / "pid", "--log-file", self.folder / "munge.log", "--seed-file", folder / "seed")  # fmt: skip
        wait_for(lambda: self.daemons_run() and (folder / "socket").exists(), "munged")

    def start(self, host, *command):
        self.daemons.append(subprocess.Popen(self.network.hosts[host].command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def daemons_run(self):
        for daemon in self.daemons:
            if daemon.poll() is not None:
                raise AssertionError(f"{' '.join(daemon.args)} left with {daemon.returncode}")
        return True

    def is_ready(self):
        return self.daemons_run() and self.command("sinfo", "--noheader", "--format=%T %D", check=False).stdout.strip() == f"idle {len(NODES)}"

    def logs(self):
        return "\n".join(f"==> {file.name}\n{file.read_text(errors='replace')}" for file in self.folder.glob("*.log"))

    def command(self, *command, check=True, environment=None):
        """On the controller, where users of a cluster are."""
        done = subprocess.run(self.network.hosts[CONTROLLER].command(*command), capture_output=True, text=True, check=False, timeout=60, env=environment)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, command))} returned {done.returncode}: {done.stderr}")
        return done

    def address(self, node):
        return self.network.hosts[node].address

    def running(self):
        """What is left of jobs on the nodes: {process: name}."""
        found = {}
        for process in (process for node in NODES for process in self.network.processes_of(node)):
            try:
                name = pathlib.Path(f"/proc/{process}/comm").read_text().strip()
            except OSError:
                continue
            if name in LAUNCHED:
                found[process] = name
        return found

    def close(self):
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait()
        self.network.close()


class Job:
    """One sbatch. The log is what the job's script and its ranks wrote."""

    def __init__(self, cluster, script, *options, arguments=(), environment=None):
        self.cluster = cluster
        self.log_path = cluster.folder / "job.log"
        self.log_path.unlink(missing_ok=True)
        submitted = cluster.command("sbatch", "--parsable", f"--output={self.log_path}", *options, script, *arguments, environment=environment)
        self.number = submitted.stdout.strip()

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def facts(self):
        """(state, exit code) as Slurm has them: ("COMPLETED", "0:0")."""
        job = dict(word.split("=", 1) for word in self.cluster.command("scontrol", "--oneliner", "show", "job", self.number).stdout.split() if "=" in word)
        return job["JobState"], job["ExitCode"]

    def wait_until(self, condition, what):
        def checked():
            state = self.facts()[0]
            if state in ENDED:
                raise AssertionError(f"the job is {state} while the test waited for {what}")
            return condition()

        try:
            wait_for(checked, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}\n{self.cluster.logs()}") from error

    def wait(self):
        """Its facts once it has ended."""
        wait_for(lambda: self.facts()[0] in ENDED, f"job {self.number} to end")
        return self.facts()

    def cancel(self, *options):
        self.cluster.command("scancel", *options, self.number)
