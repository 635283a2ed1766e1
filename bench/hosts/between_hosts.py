#!/usr/bin/env python3
"""A bench program on two hosts, a rank and a core each (network namespaces): between_hosts.py PROGRAM [ARGUMENT ...] prints its JSON. See tests/hosts/network.py."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/hosts"))
import network  # noqa: E402
from hosts_group import launch  # noqa: E402

LIMIT_S = 120


def main():
    network.enter_cluster()
    hosts = network.Network(("a", "b"))
    try:
        process = launch(hosts, *sys.argv[1:], stdout=subprocess.PIPE, text=True)
        print(process.communicate(timeout=LIMIT_S)[0], end="")
        sys.exit(process.returncode)
    finally:
        hosts.close()


if __name__ == "__main__":
    main()
