"""Section trace: what recording the spans of a step costs, as a share of the smallest step there is: one row of the embedded model, alone."""

import json
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
EMBEDDED_MODEL = ROOT / "model" / "embedded"
LIMIT_S = 300


def run_json(*command):
    return json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, timeout=LIMIT_S).stdout)


def section_trace(build_dir):
    layers = json.loads((EMBEDDED_MODEL / "config.json").read_text())["num_hidden_layers"]
    figures = run_json(build_dir / "bench" / "bench_trace", layers)
    step = run_json(build_dir / "bench" / "bench_step", EMBEDDED_MODEL, 1)
    figures["step_us"] = step["decode_step_min_us"]
    figures["share_of_step"] = figures["trace_us"] / figures["step_us"]
    return figures


SECTIONS = {"trace": section_trace}
