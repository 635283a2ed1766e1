"""The dashboard as Grafana reads it: its panels, those of closed rows too, and their queries."""

import json
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "monitoring"
DEVICE_ROW = "Device"  # what only ranks with a device of their own move


def panels_by_row():
    """[(title of the row, panel that shows something)] in the order of the dashboard."""
    title = None
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        if panel["type"] == "row":
            title = panel["title"]
            yield from ((title, nested) for nested in panel["panels"])
        else:
            yield title, panel


def all_panels():
    return [panel for _, panel in panels_by_row()]


def queries(wanted=lambda row: True):
    """[(panel's title, query)] of the rows that are wanted, as they are written, with Grafana's variables."""
    return [(panel["title"], target["expr"]) for row, panel in panels_by_row() if wanted(row) for target in panel["targets"]]


def filled_in(wanted=lambda row: True):
    """The queries of those rows with the variables filled in, for Prometheus."""
    return [query.replace("$__rate_interval", "30s").replace("$job", ".*").replace("$rank", ".*") for _, query in queries(wanted)]
