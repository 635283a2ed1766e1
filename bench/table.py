#!/usr/bin/env python3
"""Prints the tables of docs/performance.md from what `./dev bench serving --json FILE` wrote: python3 bench/table.py FILE. Standard library only."""

import json
import sys

# Tokens a second at 1, 8 and 32 requests. Peers: the best measured on the machine that docs/performance.md names, one figure each.
ROWS = {
    "tiny": {"peers": (2523, 4100, 4825), "aim": ((5000, 1), (10000, 2), (15000, 2))},
    "mid": {"peers": (152, 293, 560), "aim": ((230, None), (500, None), (1200, None))},
}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    figures = json.load(open(sys.argv[1]))["serving"]
    print(f"Load of the machine before the run: {figures['load_average_before']:.2f}\n")
    for model, row in ROWS.items():
        print(f"| {model}, requests | best peer | aim | world 1 | world 2 | limit | reached / limit | reached / aim |")
        print("|---|---|---|---|---|---|---|---|")
        for concurrency, peer, (aim, world) in zip((1, 8, 32), row["peers"], row["aim"]):
            reached = [figures[f"{model}_world{w}_tokens_per_s_{concurrency}"] for w in (1, 2)]
            limit = max(figures[f"{model}_world{w}_bandwidth_limit_tokens_per_s_{concurrency}"] for w in (1, 2))
            counts = max(reached) if world is None else reached[world - 1]
            aim_text = f"{aim:,}" if world is None else f"{aim:,} (world {world})"
            print(f"| {concurrency} | {peer:,} | {aim_text} | {reached[0]:,.0f} | {reached[1]:,.0f} | {limit:,.0f} | {counts / limit:.2f} | {counts / aim:.2f} |")
        print()
    print("| 32 streams | first token p50 / p99, ms | between tokens p50 / p99, ms | p99 / p50 of both | CPU a token, us | memory of a rank, MiB |")
    print("|---|---|---|---|---|---|")
    for model in ROWS:
        for world in (1, 2):
            f = {name: figures[f"{model}_world{world}_{name}"] for name in (
                "ttft_ms_p50_32", "ttft_ms_p99_32", "itl_ms_p50_32", "itl_ms_p99_32", "itl_p99_over_p50_32", "cpu_us_per_token_32", "peak_resident_mib_of_a_rank")}
            print(f"| {model}, world {world} | {f['ttft_ms_p50_32']:.1f} / {f['ttft_ms_p99_32']:.1f} | {f['itl_ms_p50_32']:.2f} / {f['itl_ms_p99_32']:.2f} | "
                  f"{f['ttft_ms_p99_32'] / f['ttft_ms_p50_32']:.2f}, {f['itl_p99_over_p50_32']:.2f} | {f['cpu_us_per_token_32']:.1f} | {f['peak_resident_mib_of_a_rank']:.0f} |")


if __name__ == "__main__":
    main()
