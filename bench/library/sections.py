"""Sections of the library: microbatcher, context, adaptive."""

import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
LIMIT_S = 300


def run_json(*command):
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT_S).stdout)


def section_microbatcher(build_dir):
    """Ours and the Python form of the seed in turn, each five times: a neighbour on the machine hits single runs."""
    ours, python = [], []
    for _ in range(5):
        ours.append(run_json(build_dir / "bench" / "bench_microbatcher"))
        python.append(run_json(sys.executable, HERE / "microbatcher_baseline.py"))
    figures = {name: statistics.median(run[name] for run in ours) for name in ours[0]}
    figures.update({f"python_{name}": statistics.median(run[name] for run in python) for name in python[0]})
    figures["ratio_vs_python"] = figures["items_per_s"] / figures["python_items_per_s"]
    return figures


def section_context(build_dir):
    return run_json(build_dir / "bench" / "bench_context")


def section_adaptive(build_dir):
    """Steps of the ladder between the size and the best one, and the micro-batch after which it stays within one step. A plot for each run."""
    figures = {}
    folder = build_dir / "bench" / "adaptive"
    folder.mkdir(parents=True, exist_ok=True)
    for run in run_json(build_dir / "bench" / "bench_adaptive"):
        best = run["ladder"].index(run["best"])
        distances = [abs(run["ladder"].index(size) - best) for size in run["sizes"]]
        figures[f"{run['name']}_settled_after"] = max((i + 1 for i, distance in enumerate(distances) if distance > 1), default=0)
        figures[f"{run['name']}_steps_from_best"] = distances[-1]
        (folder / f"{run['name']}.svg").write_text(plot(run))
    print(f"  plots: {folder}")
    return figures


def plot(run, width=640, height=240, margin=40):
    """Size over micro-batches, on the ladder's (logarithmic) scale, with the best size dashed."""
    levels = len(run["ladder"])

    def x(index):
        return margin + index * (width - 2 * margin) / (len(run["sizes"]) - 1)

    def y(size):
        return height - margin - run["ladder"].index(size) * (height - 2 * margin) / (levels - 1)

    points = " ".join(f"{x(i):.1f},{y(size):.1f}" for i, size in enumerate(run["sizes"]))
    labels = "".join(
        f'<text x="{margin - 6}" y="{y(size) + 4:.1f}" text-anchor="end">{size}</text><line x1="{margin}" x2="{width - margin}" y1="{y(size):.1f}" y2="{y(size):.1f}" stroke="#ddd"/>'
        for size in run["ladder"]
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="white"/>{labels}'
        f'<line x1="{margin}" x2="{width - margin}" y1="{y(run["best"]):.1f}" y2="{y(run["best"]):.1f}" stroke="#2a2" stroke-dasharray="5 4"/>'
        f'<polyline points="{points}" fill="none" stroke="#15c" stroke-width="1.5"/>'
        f'<text x="{margin}" y="18">{run["name"]}: rows of each micro-batch; dashed: the best size</text>'
        f'<text x="{width / 2}" y="{height - 10}" text-anchor="middle">micro-batch, 1 to {len(run["sizes"])}</text></svg>\n'
    )


SECTIONS = {"microbatcher": section_microbatcher, "context": section_context, "adaptive": section_adaptive}
