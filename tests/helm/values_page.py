#!/usr/bin/env python3
"""Writes helm/lockstep/VALUES.md from the comments of values.yaml: each comment describes the next key.

usage: values_page.py > helm/lockstep/VALUES.md"""

import json
import pathlib
import re

import yaml

CHART = pathlib.Path(__file__).resolve().parents[2] / "helm/lockstep"


def comments(text):
    """{dotted key: comment}."""
    found, path, pending = {}, [], []
    for line in text.splitlines():
        if match := re.match(r"^( *)# ?(.*)", line):
            pending.append(match[2])
        elif match := re.match(r"^( *)([A-Za-z]\w*):", line):
            path = [*path[: len(match[1]) // 2], match[2]]
            found[".".join(path)] = " ".join(pending)
            pending = []
    return found


def rows(values, described, prefix=""):
    for key, value in values.items():
        name = f"{prefix}{key}"
        text = described.get(name, "")
        if isinstance(value, dict) and value and any(inner.startswith(f"{name}.") for inner in described):
            if text:
                yield f"| `{name}` | | {text} |"
            yield from rows(value, described, f"{name}.")
        else:
            yield f"| `{name}` | `{json.dumps(value)}` | {text} |"


def page():
    text = (CHART / "values.yaml").read_text()
    head = ["# Values of the chart", "", "Written by tests/helm/values_page.py from the comments of values.yaml.", "", "| Value | Default | |", "|---|---|---|"]
    return "\n".join([*head, *rows(yaml.safe_load(text), comments(text))]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
