#!/usr/bin/env python3
"""Goal    The tables of docs/ that follow from the code say what the code says: options, metrics, routes.
Method  print_tables makes them anew; what stands between a page's markers must be just that. With --write it is put there."""

import pathlib
import re
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGES = {"options": "docs/configuration.md", "metrics": "docs/metrics.md", "routes": "docs/api.md"}


def made(tool, table):
    return subprocess.run([tool, table], check=True, capture_output=True, text=True, timeout=60).stdout


def replaced(page, table, text):
    """`page` with `text` between the markers of `table`."""
    block = re.compile(rf"(<!-- {table}: made by \./dev pages -->\n\n).*?(\n<!-- end of {table} -->\n)", re.DOTALL)
    result, count = block.subn(lambda match: match[1] + text + match[2], page)
    if count != 1:
        raise SystemExit(f"{PAGES[table]} must have the markers of {table} once, and has them {count} times")
    return result


def main(tool, write):
    stale = []
    for table, name in PAGES.items():
        path = REPOSITORY / name
        page = path.read_text(encoding="utf-8")
        current = replaced(page, table, made(tool, table))
        if current == page:
            continue
        if write:
            path.write_text(current, encoding="utf-8")
            print(f"wrote {name}")
        else:
            stale.append(name)
    if stale:
        raise SystemExit(f"not what the code says: {', '.join(stale)}. Run ./dev pages, and read what it changed")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--write"]):
        raise SystemExit("usage: pages.py PRINT_TABLES [--write]")
    main(sys.argv[1], sys.argv[2:] == ["--write"])
