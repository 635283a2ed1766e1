"""Section `serving`: tokens a second, latency and CPU time of whole groups, against what the machine's memory allows.

limit, tokens/s = requests * bytes read a second / bytes of the weights that a step of as many tokens needs. Those are all of a step's weights, each read once
for the whole group, with the distinct experts that random routing gives: experts * (1 - (1 - experts per token / experts) ^ requests), in each layer.
Bytes read a second come from bench_bandwidth in the same run, with all cores, over a stretch of just that size: what fits a cache is read from there.
"""

import json
import os
import pathlib
import re
import statistics
import subprocess

from group import ROOT, Group, cpu_seconds

GENERATED_TOKENS = 128
CONCURRENCIES = (1, 8, 32)
RUNS = 3


class Model:
    def __init__(self, name, folder, options, prompt, requests_per_connection):
        self.name, self.options, self.prompt, self.requests_per_connection = name, options, prompt, requests_per_connection
        self.config = json.loads((folder / "config.json").read_text())

    def bytes_of_step(self, requests):
        """Bytes of the weights that a step of one token each for `requests` requests reads."""
        config = self.config
        hidden, experts, top_k = config["hidden_size"], config["num_experts"], config["num_experts_per_tok"]
        heads, kv_heads, head_size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
        attention = hidden * head_size * (2 * heads + 2 * kv_heads)
        distinct = experts * (1 - (1 - top_k / experts) ** requests)
        expert = 3 * hidden * config["moe_intermediate_size"]
        return 2 * (config["num_hidden_layers"] * (attention + hidden * experts + distinct * expert) + hidden * config["vocab_size"])


MODELS = (
    Model("tiny", ROOT / "model" / "embedded", (), "And it came to pass in those days, that there went out a decree", 8),
    Model("mid", ROOT / "bench" / "models" / "mid", ("--model", str(ROOT / "bench" / "models" / "mid"), "--load-format", "dummy"), [11, 48, 85, 122], 2),
)


def run_json(program, *arguments):
    return json.loads(subprocess.run([str(program), *map(str, arguments)], check=True, capture_output=True, text=True, timeout=600).stdout)


def peak_resident_mib(pid):
    return int(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def measure(build_dir, model, group, concurrency):
    """Figures at one number of requests at once; the memory is measured before and after each run, and its best counts."""
    cores = len(os.sched_getaffinity(0))
    step_bytes = model.bytes_of_step(concurrency)
    pids = group.rank_pids()
    runs, cpu_us, bandwidth = [], [], 0.0
    requests = max(concurrency * model.requests_per_connection, 4)
    for seed in range(RUNS):
        bandwidth = max(bandwidth, run_json(build_dir / "bench" / "bench_bandwidth", step_bytes / 1e6, cores)["bytes_per_s"])
        before = sum(map(cpu_seconds, pids))
        runs.append(run_json(build_dir / "bench" / "bench_load", group.port, group.world_size, concurrency, requests, model.config["vocab_size"], seed))
        cpu_us.append(1e6 * (sum(map(cpu_seconds, pids)) - before) / (requests * GENERATED_TOKENS))
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    limit = concurrency * bandwidth / step_bytes
    figures = {
        f"tokens_per_s_{concurrency}": median["tokens_per_s"],
        f"bandwidth_limit_tokens_per_s_{concurrency}": limit,
        f"ratio_vs_bandwidth_limit_{concurrency}": median["tokens_per_s"] / limit,
        f"read_gb_per_s_{concurrency}": bandwidth / 1e9,
        f"cpu_us_per_token_{concurrency}": statistics.median(cpu_us),
    }
    if concurrency == max(CONCURRENCIES):
        for name in ("ttft_ms_p50", "ttft_ms_p99", "itl_ms_p50", "itl_ms_p99"):
            figures[f"{name}_{concurrency}"] = median[name]
        figures[f"itl_p99_over_p50_{concurrency}"] = statistics.median(run["itl_ms_p99"] / max(run["itl_ms_p50"], 0.001) for run in runs)
    return figures


def section_serving(build_dir):
    figures = {"load_average_before": os.getloadavg()[0]}  # other work on the machine makes all that follows worth little
    for model in MODELS:
        for world_size in (1, 2):
            prefix = f"{model.name}_world{world_size}"
            starts = []
            for _ in range(3):
                with Group(build_dir, world_size, model.options, model.prompt) as group:
                    starts.append(group.first_token())
            figures[f"{prefix}_start_to_first_token_s"] = statistics.median(starts)
            with Group(build_dir, world_size, model.options, model.prompt) as group:
                group.wait_ready()
                group.complete(0, 8)  # warm
                for concurrency in CONCURRENCIES:
                    for name, value in measure(build_dir, model, group, concurrency).items():
                        figures[f"{prefix}_{name}"] = value
                figures[f"{prefix}_peak_resident_mib_of_a_rank"] = max(map(peak_resident_mib, group.rank_pids()))
    return figures
