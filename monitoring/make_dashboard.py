#!/usr/bin/env python3
"""Writes dashboard.json, which Grafana 9 and later import. Run it after a change here; a test compares the two.

usage: make_dashboard.py > monitoring/dashboard.json"""

import json

WIDTH = 24  # Grafana's columns
ALL = 'job=~"$job",rank=~"$rank"'


def rate(name, labels="", by="job, rank"):
    return f"sum by ({by}) (rate({name}{{{ALL}{',' + labels if labels else ''}}}[$__rate_interval]))"


def quantile(q, name, by="job"):
    return f"histogram_quantile({q}, sum by ({by}, le) (rate({name}_bucket{{{ALL}}}[$__rate_interval])))"


def quantiles(name):
    return [(quantile(q, name), f"{{{{job}}}} p{round(q * 100)}") for q in (0.5, 0.95, 0.99)]


def gauge(name, labels=""):
    return f"{name}{{{ALL}{',' + labels if labels else ''}}}"


def mean(name):
    return f"{rate(name + '_sum')} / {rate(name + '_count')}"


def buckets(name):
    return [(rate(f"{name}_bucket", by="le"), "{{le}}")]


READY = gauge("lockstep_up_state", 'state="ready"')
RANK = "{{job}} rank {{rank}}"
# A line of coloured boxes for each rank: of many ranks the odd one is seen at once, where curves would cover each other.
RANK_HEAT = "status-history"

# (row, [(title, what it tells, kind, unit, [(query, legend)])])
ROWS = [
    ("Overview", [
        ("Ranks ready", "Ranks that take requests", "stat", "short", [(f"sum by (job) ({READY})", "{{job}}")]),
        ("Group", "Size, epoch and transport", "table", "short", [(gauge("lockstep_group_info"), "")]),
        ("Requests", "In computation, and waiting for room", "timeseries", "short",
         [(f"sum by (job) ({gauge('lockstep_requests_running')})", "{{job}} running"), (f"sum by (job) ({gauge('lockstep_requests_waiting')})", "{{job}} waiting")]),
        ("Tokens", "Generated, and prompt tokens computed", "timeseries", "short",
         [(rate("lockstep_generated_tokens_total", by="job"), "{{job}} generated"), (rate("lockstep_prompt_tokens_total", by="job"), "{{job}} prompt")]),
        ("Errors", "Share of answers that are errors of the server, and what the budget allows (0.5 %)", "timeseries", "percentunit",
         [('lockstep:errors:ratio5m{job=~"$job"}', "{{job}}"), ("vector(0.005)", "budget")]),
        ("Time to first token", "From arrival", "timeseries", "s", quantiles("lockstep_time_to_first_token_seconds")),
    ]),
    ("Heat maps: a line for each rank", [
        ("Step time", "Mean. A late rank shows in all lines: the others wait for it", RANK_HEAT, "s", [(mean("lockstep_step_duration_seconds"), RANK)]),
        ("Rows a step", "Mean of what each rank computed", RANK_HEAT, "short", [(mean("lockstep_step_tokens"), RANK)]),
        ("Waiting for others", "Seconds a second in which a rank did nothing but wait for the group's plan. The late rank waits least", RANK_HEAT, "percentunit",
         [(rate("lockstep_coordination_wait_seconds_total"), RANK)]),
        ("Came last", "Agreements a second to which that rank came last while others waited 0.1 ms or more", RANK_HEAT, "ops",
         [(f"max by (job, peer) (rate(lockstep_last_arrival_total{{{ALL}}}[$__rate_interval]))", "{{job}} rank {{peer}}")]),
        ("Exchange with nothing under it", "Share of a step in which a rank neither computed nor hid an exchange", RANK_HEAT, "percentunit",
         [('lockstep:exposed_exchange:ratio5m{job=~"$job",rank=~"$rank"}', RANK)]),
        ("KV cache used", "", RANK_HEAT, "percentunit", [(gauge("lockstep_kv_cache_usage_ratio"), RANK)]),
        ("Requests that wait", "For room on that rank", RANK_HEAT, "short", [(gauge("lockstep_requests_waiting"), RANK)]),
        ("Time to first token, p95", "Of requests that came to that rank", RANK_HEAT, "s", [(quantile(0.95, "lockstep_time_to_first_token_seconds", by="job, rank"), RANK)]),
        ("Between tokens, p95", "Of requests that came to that rank", RANK_HEAT, "s", [(quantile(0.95, "lockstep_inter_token_seconds", by="job, rank"), RANK)]),
    ]),
    ("Ranks", [
        ("State", "The state that each rank is in", "state-timeline", "short", [(f"{gauge('lockstep_up_state')} == 1", RANK + ": {{state}}")]),
        ("Step duration", "All chosen ranks together", "heatmap", "s", buckets("lockstep_step_duration_seconds")),
        ("Tokens of a step", "Rows per step, all chosen ranks together", "heatmap", "short", buckets("lockstep_step_tokens")),
        ("Forward pass by batch size", "Median, without agreement and sampling; rows padded to a power of two", "timeseries", "s",
         [('max by (job, batch_size) (lockstep_forward_duration_seconds{job=~"$job",rank=~"$rank",quantile="0.5"})', "{{job}} {{batch_size}}")]),
        ("Steps by kind", "What ranks computed", "timeseries", "ops", [(rate("lockstep_steps_total", by="job, kind"), "{{job}} {{kind}}")]),
        # Of the matrix that all ranks share, so that one rank's word is enough.
        ("Load balance", "Mean over maximum of the ranks' tokens and used KV blocks: 1 is even", "timeseries", "percentunit",
         [(f"min by (job, resource) ({gauge('lockstep_load_balance_ratio')})", "{{job}} {{resource}}")]),
        ("Since the last step", "An idle group still takes a step each keep-alive interval", "timeseries", "s",
         [(f"time() - {gauge('lockstep_last_step_timestamp_seconds')}", RANK)]),
        # A line for each peer and not for each pair: those of 64 ranks are 4,032.
        ("Silence of peers", "Since the last heartbeat, as the rank sees it that has waited longest", "timeseries", "s",
         [(f"max by (job, peer) ({gauge('lockstep_peer_heartbeat_age_seconds')})", "{{job}} rank {{peer}}")]),
        ("Peers connected", "0: a rank's channel to that rank is down", "timeseries", "short", [(f"min by (job, peer) ({gauge('lockstep_peer_up')})", "{{job}} rank {{peer}}")]),
    ]),
    ("Agreement and overlap", [
        ("Agreement", "From a rank's proposal to the group's plan, waiting included", "timeseries", "s", quantiles("lockstep_coordination_duration_seconds")),
        ("Agreement by rank", "p99, five minutes. The late rank waits least", "timeseries", "s", [('lockstep:coordination_seconds:p99_5m{job=~"$job",rank=~"$rank"}', RANK)]),
        ("Exchange", "Seconds a second in dispatch and combine", "timeseries", "percentunit",
         [(rate("lockstep_comm_seconds_total", by="job, op, exposed"), "{{job}} {{op}}, exposed: {{exposed}}")]),
        ("Exposed exchange", "Share of a step under which nothing is computed", "timeseries", "percentunit",
         [('lockstep:exposed_exchange:ratio5m{job=~"$job",rank=~"$rank"}', RANK)]),
        ("Micro-batches", "Steps that were split, and whole ones, and why", "timeseries", "ops",
         [(rate("lockstep_microbatch_steps_total", by="job, decision, reason"), "{{job}} {{decision}}: {{reason}}")]),
        ("Exchange without a core", "Seconds a second of exposed exchange that stages lost as their thread had no core", "timeseries", "percentunit",
         [(rate("lockstep_comm_core_lost_seconds_total"), RANK)]),
        ("Dropped rows", "Computed for requests that had ended before", "timeseries", "ops", [(rate("lockstep_dropped_rows_total"), RANK)]),
        ("On the wire", "Bytes of expert exchanges", "timeseries", "Bps", [(rate("lockstep_wire_bytes_total"), RANK)]),
        ("Rows sent to other ranks", "", "timeseries", "ops", [(rate("lockstep_crossed_rows_total"), RANK)]),
    ]),
    ("Queue and latency", [
        ("Waiting", "Accepted requests that wait for room", "timeseries", "short", [(gauge("lockstep_requests_waiting"), RANK)]),
        ("Time in the queue", "From arrival to the first rows in a step", "timeseries", "s", quantiles("lockstep_request_queue_seconds")),
        ("Between tokens", "", "timeseries", "s", quantiles("lockstep_inter_token_seconds")),
        ("Request duration", "From arrival to the end", "timeseries", "s", quantiles("lockstep_request_duration_seconds")),
    ]),
    ("KV cache", [
        ("Used", "", "timeseries", "percentunit", [(gauge("lockstep_kv_cache_usage_ratio"), RANK)]),
        ("Blocks", "", "timeseries", "short", [(f"sum by (job, state) ({gauge('lockstep_kv_cache_blocks')})", "{{job}} {{state}}")]),
        ("Preempted", "Requests that gave their blocks up and are computed again", "timeseries", "ops", [(rate("lockstep_preemptions_total", by="job, rank"), RANK)]),
    ]),
    ("HTTP and errors", [
        ("Answers by code", "", "timeseries", "reqps", [(rate("lockstep_http_requests_total", by="job, code"), "{{job}} {{code}}")]),
        ("Refused before a handler", "", "timeseries", "reqps", [(rate("lockstep_http_rejected_total", by="job, reason"), "{{job}} {{reason}}")]),
        ("Ends of requests", "", "timeseries", "ops", [(rate("lockstep_requests_finished_total", by="job, reason"), "{{job}} {{reason}}")]),
        ("Connections", "", "timeseries", "short",
         [(f"sum by (job) ({gauge('lockstep_http_connections')})", "{{job}} open"), (f"sum by (job) ({gauge('lockstep_http_inflight_requests')})", "{{job}} being answered")]),
        ("Time in HTTP", "p99 by route", "timeseries", "s", [(quantile(0.99, "lockstep_http_request_duration_seconds", by="job, route"), "{{job}} {{route}}")]),
        ("Disagreements", "Must stay 0", "timeseries", "short", [(f"sum by (job, field) ({gauge('lockstep_vote_mismatch_total')})", "{{job}} {{field}}")]),
        ("Left to drain", "", "timeseries", "short", [(gauge("lockstep_drain_remaining_requests"), RANK)]),
    ]),
    ("Device", [
        ("Device memory", "In use, reserved, and all of it; nothing on the host", "timeseries", "bytes", [(gauge("lockstep_device_memory_bytes"), RANK + " {{state}}")]),
        ("Launches", "Kernels a second", "timeseries", "ops", [(rate("lockstep_device_launches_total"), RANK)]),
        ("Steps by graphs", "As one graph, as graphs between exchanges, and without", "timeseries", "ops",
         [(rate("lockstep_graph_steps_total", by="job, mode"), "{{job}} {{mode}}")]),
        ("Graph launches", "Each in the place of many kernels' launches", "timeseries", "ops", [(rate("lockstep_device_graph_launches_total"), RANK)]),
        ("Between devices", "Bytes a second that NCCL sends and receives", "timeseries", "Bps",
         [(rate("lockstep_nccl_bytes_total", by="job, rank, direction"), RANK + " {{direction}}")]),
        ("Agreement's transport", "What carries the agreement", "timeseries", "short", [(gauge("lockstep_agreement_transport_info"), RANK + " {{transport}}")]),
        ("Waits of the host", "Times a second that the host waits for the device", "timeseries", "ops", [(rate("lockstep_device_host_waits_total"), RANK)]),
    ]),
    ("Process", [
        ("CPU", "Cores in use", "timeseries", "short", [(rate("process_cpu_seconds_total"), RANK)]),
        ("Memory", "Resident", "timeseries", "bytes", [(gauge("process_resident_memory_bytes"), RANK)]),
        ("Descriptors", "Open, of those allowed", "timeseries", "percentunit", [(f"{gauge('process_open_fds')} / {gauge('process_max_fds')}", RANK)]),
        ("Start", "Seconds by phase", "bargauge", "s", [(gauge("lockstep_startup_phase_seconds"), RANK + " {{phase}}")]),
    ]),
]  # fmt: skip

# What a row of its own for each rank has. They are closed at first: Grafana asks for nothing that it does not show.
EACH_RANK = [
    ("Step duration", "", "heatmap", "s", buckets("lockstep_step_duration_seconds")),
    ("Rows of a step", "", "heatmap", "short", buckets("lockstep_step_tokens")),
    ("Agreement", "From its proposal to the group's plan, waiting included", "heatmap", "s", buckets("lockstep_coordination_duration_seconds")),
    ("Time to first token", "", "heatmap", "s", buckets("lockstep_time_to_first_token_seconds")),
    ("Between tokens", "", "heatmap", "s", buckets("lockstep_inter_token_seconds")),
    ("Time in the queue", "", "heatmap", "s", buckets("lockstep_request_queue_seconds")),
]

SOURCE = {"type": "prometheus", "uid": "${source}"}


def target(query, legend, kind, index):
    formats = {"heatmap": "heatmap", "table": "table"}
    return {"datasource": SOURCE, "expr": query, "legendFormat": legend, "refId": chr(ord("A") + index), "format": formats.get(kind, "time_series"), "instant": kind == "table"}


def looks(kind, unit):
    """(fieldConfig's defaults, options, what else a panel of that kind has)."""
    if kind == RANK_HEAT:
        # 60 boxes a line: the panel refuses to draw boxes that are narrower than a pixel.
        return ({"unit": unit, "min": 0, "color": {"mode": "continuous-GrYlRd"}, "custom": {"fillOpacity": 90, "lineWidth": 0}},
                {"showValue": "never", "rowHeight": 0.95, "colWidth": 1, "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom"}},
                {"maxDataPoints": 60})  # fmt: skip
    return {"unit": unit, "min": 0}, {"calculate": False, "yAxis": {"unit": unit}} if kind == "heatmap" else {}, {}


def panel(number, title, description, kind, unit, queries, place):
    defaults, options, more = looks(kind, unit)
    return {"id": number, "title": title, "description": description, "type": kind, "datasource": SOURCE, "gridPos": place,
            "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options, **more,
            "targets": [target(query, legend, kind, index) for index, (query, legend) in enumerate(queries)]}  # fmt: skip


def row(number, title, y, **more):
    return {"id": number, "title": title, "type": "row", "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}, **more}


def grid(first_number, members, y):
    """Panels three in a line, from the line `y` on."""
    return [panel(first_number + index, *member, {"x": index % 3 * 8, "y": y + index // 3 * 8, "w": 8, "h": 8}) for index, member in enumerate(members)]


def panels():
    found, y = [], 0
    for title, members in ROWS:
        found.append(row(len(found) + 1, title, y))
        found += grid(len(found) + 1, members, y + 1)
        y += 1 + (len(members) + 2) // 3 * 8
    number = len(found) + 1
    return [*found, row(number, "Rank $rank", y, repeat="rank", collapsed=True, panels=grid(number + 1, EACH_RANK, y + 1))]


def variable(name, query):
    return {"name": name, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name}, "refresh": 2, "multi": True, "includeAll": True,
            "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "sort": 3}  # fmt: skip


def dashboard():
    return {"uid": "lockstep", "title": "lockstep", "tags": ["lockstep"], "schemaVersion": 37, "version": 1, "editable": True, "graphTooltip": 1,
            "time": {"from": "now-1h", "to": "now"}, "refresh": "15s", "panels": panels(), "annotations": {"list": []}, "links": [],
            "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus", "current": {}},
                                    variable("job", "label_values(lockstep_build_info, job)"), variable("rank", 'label_values(lockstep_build_info{job=~"$job"}, rank)')]}}  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
