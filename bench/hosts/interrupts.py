#!/usr/bin/env python3
"""What a link's packets take from a thread that computes on a host's only core, as interrupts: interrupts.py PROGRAM MEGABITS_PER_S; prints JSON. Started by sections.py.

Both hosts send all that the link takes, first without anything on the link. Of what the thread's own CPU clock counts as its own, unless the kernel counts
interrupts apart: stages of a step are longer by it, and no clock of the thread tells.
"""

import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/hosts"))
import network  # noqa: E402

NAMES = ("a", "b")
SECONDS = 4
PORT = 7000
CHUNK = 1 << 20
# Until the other side or the whole network is gone.
RECEIVE = f"import socket\ns = socket.create_server(('', {PORT}))\nprint('ready', flush=True)\nc = s.accept()[0]\nb = bytearray({CHUNK})\nwhile c.recv_into(b): pass"
SEND = f"import socket, sys\ns = socket.create_connection((sys.argv[1], {PORT}))\nb = bytes({CHUNK})\nwhile True: s.sendall(b)"


def measure(hosts, program):
    """Means over both hosts."""
    running = [subprocess.Popen(host.command(program, SECONDS), stdout=subprocess.PIPE, text=True) for host in hosts.hosts.values()]
    answers = [json.loads(process.communicate()[0]) for process in running]
    return {name: statistics.mean(answer[name] for answer in answers) for name in answers[0]}


def start_traffic(hosts):
    for host in hosts.hosts.values():
        receiver = subprocess.Popen(host.command(sys.executable, "-c", RECEIVE), stdout=subprocess.PIPE, text=True)
        receiver.stdout.readline()
    for name, other in (NAMES, NAMES[::-1]):
        subprocess.Popen(hosts.hosts[name].command(sys.executable, "-c", SEND, hosts.hosts[other].address))


def main():
    network.enter_cluster()
    program, megabits_per_s = sys.argv[1:]
    hosts = network.Network(NAMES)
    try:
        for name in NAMES:
            hosts.limit(name, f"{megabits_per_s}mbit")
        quiet = measure(hosts, program)
        start_traffic(hosts)
        print(json.dumps(measure(hosts, program) | {f"{name}_quiet": share for name, share in quiet.items()}))
    finally:
        hosts.close()


if __name__ == "__main__":
    main()
