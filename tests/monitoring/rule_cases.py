"""The cases of promtool's rule test: for each alert, series under which it fires and neighbouring ones under which it must not.

Series are of one rank unless said otherwise; Prometheus' notation: `0+30x20` is 0, 30, 60 ... ; `_` is a missing sample."""

LABELS = 'job="lockstep", instance="a:8000", rank="0"'
SECOND = 'job="lockstep", instance="a:8001", rank="1"'


def series(name, values, labels="", base=LABELS):
    return {"series": f"{name}{{{base}{', ' + labels if labels else ''}}}", "values": values}


READY = [series("lockstep_up_state", "1x400", 'state="ready"'), series("lockstep_up_state", "0x400", 'state="draining"')]
BUILD = [series("lockstep_build_info", "1x10 _x390", 'version="1"')]
PEER = [series("lockstep_peer_up", "1x400", 'peer="1"')]
UP_LOST = {"series": 'up{job="lockstep", instance="a:8000"}', "values": "1x10 0x390"}
UP_OTHER = {"series": 'up{job="another", instance="a:8000"}', "values": "0x400"}


def work(running=0, waiting=0):
    return [series("lockstep_requests_running", f"{running}x400"), series("lockstep_requests_waiting", f"{waiting}x400")]


def answers(bad, good):
    return [series("lockstep_http_requests_total", f"0+{bad}x400", 'route="/v1/completions", code="500"'),
            series("lockstep_http_requests_total", f"0+{good}x400", 'route="/v1/completions", code="200"'),
            series("lockstep_http_requests_total", "0+1000x400", 'route="/ready", code="503"')]  # fmt: skip


def agreement(le_late):
    """Half of the agreements take at most 50 ms, the others at most `le_late` seconds."""
    buckets = {"0.05": 5, "0.5": 10 if le_late == 0.5 else 5, "+Inf": 10}
    if le_late == 0.05:
        buckets["0.05"] = buckets["0.5"] = 10
    return [series("lockstep_coordination_duration_seconds_bucket", f"0+{count}x400", f'le="{le}"') for le, count in buckets.items()]


def exchange(exposed):
    return [series("lockstep_step_duration_seconds_sum", "0+60x400", 'kind="decode"'),
            series("lockstep_comm_seconds_total", f"0+{exposed}x400", 'op="dispatch", exposed="true"'),
            series("lockstep_comm_seconds_total", "0+50x400", 'op="dispatch", exposed="partly"')]  # fmt: skip


def late(steps, waited):
    """Of 60 steps a minute rank 1 came last to so many; rank 0 waited so many seconds of each minute."""
    return [series("lockstep_last_arrival_total", f"0+{steps}x400", 'peer="1"'), series("lockstep_last_arrival_total", "0+1x400", 'peer="0"'),
            series("lockstep_steps_total", "0+50x400", 'kind="decode"'), series("lockstep_steps_total", "0+10x400", 'kind="idle"'),
            series("lockstep_coordination_wait_seconds_total", f"0+{waited}x400"),
            series("lockstep_coordination_wait_seconds_total", "0+0.1x400", base=SECOND)]  # fmt: skip


# (alert, minute, what fires, what does not). A sample a minute.
CASES = [
    ("LockstepRankMissing", 15, [*BUILD, UP_LOST], [UP_OTHER]),
    ("LockstepPeerSilent", 5, [series("lockstep_peer_heartbeat_age_seconds", "4x400", 'peer="1"')], [series("lockstep_peer_heartbeat_age_seconds", "0.2x400", 'peer="1"')]),
    ("LockstepStepStalled", 5, [*READY, *PEER, series("lockstep_last_step_timestamp_seconds", "0x400")], [*READY, *PEER, series("lockstep_last_step_timestamp_seconds", "0+60x400")]),
    ("LockstepStepStalled", 5, [*READY, *work(running=1), series("lockstep_last_step_timestamp_seconds", "0x400")], [*READY, *work(), series("lockstep_last_step_timestamp_seconds", "0x400")]),
    ("LockstepStepStalled", 5, [*READY, *work(waiting=1), series("lockstep_last_step_timestamp_seconds", "0x400")], [*work(waiting=1), series("lockstep_last_step_timestamp_seconds", "0x400")]),
    ("LockstepRankNotReady", 15, [series("lockstep_up_state", "0x400", 'state="ready"'), series("lockstep_up_state", "0x400", 'state="draining"')], READY),
    ("LockstepDiverged", 5, [series("lockstep_vote_mismatch_total", "0 0 1x400", 'field="epoch"')], [series("lockstep_vote_mismatch_total", "0x400", 'field="epoch"')]),
    ("LockstepAgreementSlow", 20, agreement(0.5), agreement(0.05)),
    ("LockstepRankLate", 30, late(steps=57, waited=25), late(steps=57, waited=5)),
    ("LockstepExchangeExposed", 25, exchange(40), exchange(10)),
    ("LockstepKvCacheFull", 10, [series("lockstep_kv_cache_usage_ratio", "0.99x400"), series("lockstep_requests_waiting", "3x400")],
     [series("lockstep_kv_cache_usage_ratio", "0.99x400"), series("lockstep_requests_waiting", "0x400")]),
    ("LockstepQueueGrowing", 30, [series("lockstep_requests_waiting", "1+1x400")], [series("lockstep_requests_waiting", "5x400")]),
    ("LockstepImbalance", 30, [series("lockstep_load_balance_ratio", "0.4x400", 'resource="tokens"'), series("lockstep_requests_waiting", "2x400", base=SECOND)],
     [series("lockstep_load_balance_ratio", "0.4x400", 'resource="tokens"'), series("lockstep_requests_waiting", "0x400", base=SECOND)]),
    ("LockstepErrorBudgetBurnFast", 90, answers(10, 90), answers(3, 997)),
    ("LockstepErrorBudgetBurnSlow", 399, answers(4, 96), answers(1, 99)),
    ("LockstepDrainStuck", 5, [series("lockstep_drain_remaining_requests", "2x400"), series("lockstep_up_state", "1x400", 'state="draining"')],
     [series("lockstep_drain_remaining_requests", "0x400"), series("lockstep_up_state", "1x400", 'state="draining"')]),
    ("LockstepRestarting", 12, [*BUILD[:0], series("lockstep_build_info", "1x400"), series("process_start_time_seconds", "1 2 3 4 4 5x400")],
     [series("lockstep_build_info", "1x400"), series("process_start_time_seconds", "1 1 2x400")]),
]  # fmt: skip
