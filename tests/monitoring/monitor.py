#!/usr/bin/env python3
"""`./dev monitor`: two ranks, clients that keep them busy, and a Prometheus with the rules, until Ctrl-C. With --once it leaves when Prometheus has seen tokens."""

import signal
import sys
import threading

from observed_group import FOLDER, HOST, Load, Prometheus, start_group, wait_for


def main():
    once = sys.argv[1:] == ["--once"]
    if sys.argv[1:] and not once:
        sys.exit(f"dev: monitor: unknown argument '{sys.argv[1]}'; see ./dev help")
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    group = start_group()
    prometheus = load = None
    try:
        prometheus = Prometheus(group.ports)
        load = Load(group.ports)
        print(f"== Prometheus: http://{HOST}:{prometheus.port}/graph and /alerts; ranks on ports {group.ports[0]} to {group.ports[-1]}; Grafana takes {FOLDER / 'dashboard.json'}")
        if once:
            wait_for(lambda: prometheus.total("lockstep_generated_tokens_total") > 0, "Prometheus to have seen tokens")
            print(f"== tokens seen: {prometheus.total('lockstep_generated_tokens_total'):.0f}")
        else:
            ended.wait()
    finally:
        if load:
            load.stop()
        if prometheus:
            prometheus.close()
        group.drain()
        status = group.wait()
        group.close()
    if load.problems and not ended.is_set():  # Ctrl-C reaches the group too, which refuses new requests then
        sys.exit(f"dev: monitor: clients failed: {load.problems[0]}")
    sys.exit(status)


if __name__ == "__main__":
    main()
