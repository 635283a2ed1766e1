"""Section scale: what a step agreement costs each rank as the group grows, without the all-reduce itself."""

import json
import math
import subprocess

LIMIT_S = 300
DECIDE_LIMIT_US = 100  # the goal at 4,096 ranks


def section_scale(build_dir):
    """decide() and the matrix by group size, as a table and a plot. `slope`: of log time over log ranks from 64 ranks on; 1 is linear."""
    lines = subprocess.run([build_dir / "bench" / "bench_scale"], check=True, capture_output=True, text=True, timeout=LIMIT_S).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    print("  ranks  decide_us  encode_us  matrix_bytes")
    figures = {}
    for row in rows:
        print(f"  {row['ranks']:>5}  {row['decide_us']:>9.3f}  {row['encode_us']:>9.3f}  {row['matrix_bytes']:>12}")
        figures[f"decide_us_{row['ranks']}"] = row["decide_us"]
    figures["encode_us_4096"] = rows[-1]["encode_us"]
    figures["bytes_per_rank"] = rows[-1]["matrix_bytes"] / rows[-1]["ranks"]
    figures["slope"] = slope([row for row in rows if row["ranks"] >= 64])
    path = build_dir / "bench" / "scale.svg"
    path.write_text(plot(rows))
    print(f"  plot: {path}")
    return figures


def slope(rows):
    """Least squares over the logarithms."""
    x = [math.log(row["ranks"]) for row in rows]
    y = [math.log(row["decide_us"]) for row in rows]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)


def plot(rows, width=640, height=320, margin=56):
    """Both axes logarithmic; dashed: the goal."""
    low, high = math.log10(min(row["decide_us"] for row in rows) / 2), math.log10(2 * DECIDE_LIMIT_US)
    first, last = math.log2(rows[0]["ranks"]), math.log2(rows[-1]["ranks"])

    def x(ranks):
        return margin + (math.log2(ranks) - first) * (width - 2 * margin) / (last - first)

    def y(time_us):
        return height - margin - (math.log10(time_us) - low) * (height - 2 * margin) / (high - low)

    def line(label, time_us, style):
        return (f'<line x1="{margin}" x2="{width - margin}" y1="{y(time_us):.1f}" y2="{y(time_us):.1f}" {style}/>'
                f'<text x="{margin - 6}" y="{y(time_us) + 4:.1f}" text-anchor="end">{label}</text>')  # fmt: skip

    grid = "".join(line(f"{10**power:g}", 10**power, 'stroke="#ddd"') for power in range(math.ceil(low), 2))
    ticks = "".join(f'<text x="{x(row["ranks"]):.1f}" y="{height - margin + 16}" text-anchor="middle">{row["ranks"]}</text>' for row in rows)
    points = " ".join(f'{x(row["ranks"]):.1f},{y(row["decide_us"]):.1f}' for row in rows)
    dots = "".join(f'<circle cx="{x(row["ranks"]):.1f}" cy="{y(row["decide_us"]):.1f}" r="3" fill="#15c"/>' for row in rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="white"/>{grid}{ticks}'
        + line(f"{DECIDE_LIMIT_US}", DECIDE_LIMIT_US, 'stroke="#2a2" stroke-dasharray="5 4"')
        + f'<polyline points="{points}" fill="none" stroke="#15c" stroke-width="1.5"/>{dots}'
        f'<text x="{margin}" y="20">decide(): microseconds a step, by ranks; dashed: the goal at 4,096</text>'
        f'<text x="{width / 2}" y="{height - 12}" text-anchor="middle">ranks</text></svg>\n'
    )


SECTIONS = {"scale": section_scale}
