#!/usr/bin/env python3
"""Goal    A rank that is killed or stopped, in any phase of its life, ends the others within bounds: each names it, answers every open request with a coded
        error and leaves with the status for a lost peer.
Method  Real processes under lockstep-run. A phase is reached when health, metrics or the kernel's maps say so; then the signal; then status files and logs tell."""

import signal
import unittest

from fault_group import CONTEXT, KILLED, ON_CPU, PEER_LOST, RANKS, SLACK_SECONDS, STALL_SECONDS, START_SECONDS, Client, FaultTest, wait_for

KILL, STOP = signal.SIGKILL, signal.SIGSTOP
# Loaded by MPI_Init after it has made itself known to mpirun and before it waits for the other ranks. A process that dies while it makes itself known stops
# mpirun 4.1.4 altogether: the survivors leave in time and lockstep-run ends it after its grace, but what they said never comes out of it.
IN_MPI_INIT = "mca_coll_tuned"
# How long MPI_Finalize may take; see comm/mpi/mpi_runtime.cpp.
FINALIZE_SECONDS = 10.0
# A dead process is known by its connection, a stopped one by its silence.
BOUND = {KILL: SLACK_SECONDS, STOP: STALL_SECONDS + SLACK_SECONDS}
# Rows between devices are waited for on the device: the host notices in its next wait for that.
DEVICE_WAIT = "" if ON_CPU else r"|step \d+, waiting for the device"
COLLECTIVE = rf"^(peer_lost|timeout): (step \d+, agreement|(dispatch|combine) of step \d+, layer \d+{DEVICE_WAIT})(?!\w)"


class LossTest(FaultTest):
    """What is the same in all phases: the blow, and what the survivors must have done."""

    def lose(self, group, victim, number, clients=(), where="in step 0, starting", end_by_launcher=False, bound=None, named=True, begin=None):
        """`begin`: when the victim was hit, if it has been already."""
        begin = begin or group.disturb(victim, number)
        survivors = [rank for rank in range(group.ranks) if rank != victim]
        group.await_statuses(survivors)
        if number == STOP and not end_by_launcher:
            group.disturb(victim, KILL)
        self.check_clients(group, clients, victim)
        # mpirun hands on what was logged in its own time: all of it is there when it has ended.
        returned = group.wait()
        # That the launcher ended a rank which hung is no error of that rank's.
        self.assertEqual(returned, PEER_LOST if number == STOP and end_by_launcher else group.first_error(), group.log())
        self.assertEqual(group.status(victim), KILLED, group.log())
        for rank in survivors:
            row = self.record(f"{self.phase} {number.name}", victim, rank, begin, group)
            self.assertEqual(row["status"], PEER_LOST, group.log())
            self.assertLess(row["left_s"], bound or BOUND[number], group.log())
            line, _ = group.error_line(rank)
            self.assertIsNotNone(line, group.log())
            if named:
                self.assertRegex(line, rf"\brank {victim}\b")
            self.assertRegex(line, where)
        self.assert_nothing_left(group)

    def check_clients(self, group, clients, victim):
        for client in clients:
            if client.port == group.port + victim:
                continue  # its connection broke with its process
            client.join(timeout=60)
            self.assertFalse(client.is_alive(), "a request on a survivor was never ended")
            self.assertIsNone(client.cut, f"cut without a word: {client.cut}\n{group.log()}")
            self.assertIsNotNone(client.error, f"ended after {client.tokens} tokens without an error\n{group.log()}")
            self.assertEqual(client.error["code"], "rank_lost")
            self.assertFalse(client.done)


class InMpiInit(LossTest):
    phase = "MPI_Init"

    def test_a_rank_that_dies_or_stops_before_mpi_init_ends_the_others_within_the_start_timeout(self):
        for victim, number in [(0, KILL), (1, STOP)]:
            with self.subTest(victim=victim, signal=number.name):
                group = self.start(fault="hold_before_communicator", fault_rank=victim)
                group.await_library(1 - victim, IN_MPI_INIT)
                # Nothing but the launcher knows who did not come: there is no connection between the ranks yet.
                self.lose(group, victim, number, bound=START_SECONDS + SLACK_SECONDS, named=False)

    def test_a_rank_that_dies_or_stops_inside_mpi_init_ends_the_others_within_the_start_timeout(self):
        for victim, number in [(0, STOP), (1, KILL)]:
            with self.subTest(victim=victim, signal=number.name):
                # The last rank keeps the others inside until the victim is hit, then comes.
                group = self.start(ranks=3, fault="hold_before_communicator", fault_rank=2)
                for rank in (0, 1):
                    group.await_library(rank, IN_MPI_INIT)
                begin = group.disturb(victim, number)
                group.release()
                self.lose(group, victim, number, bound=START_SECONDS + SLACK_SECONDS, named=False, begin=begin)

    def test_a_rank_that_never_comes_ends_with_the_others(self):
        group = self.start(fault="hold_before_communicator", fault_rank=1)
        self.assertEqual(group.wait(), PEER_LOST, group.log())
        self.assertEqual([group.status(0), group.status(1)], [PEER_LOST, PEER_LOST], group.log())
        for rank in (0, 1):
            self.assertIn("--start-timeout" if rank == 1 else "MPI_Init", group.error_line(rank)[0] or group.log())
        self.assert_nothing_left(group)


class WhileLoading(LossTest):
    phase = "loading"

    def test_each_rank_killed_or_stopped_while_it_loads(self):
        for victim in (0, 1):
            for number in (KILL, STOP):
                with self.subTest(victim=victim, signal=number.name):
                    group = self.start(fault="hold_before_load", fault_rank=victim)
                    group.await_state(1 - victim, "loading", "warming")
                    self.assertEqual(group.health(victim)[1]["state"], "init")
                    self.lose(group, victim, number, where="^(peer_lost|timeout)(: handshake: | in step 0, starting, )")


    def test_a_rank_that_never_ends_its_loading_is_named_and_all_leave(self):
        group = self.start(fault="hold_before_load", fault_rank=1)
        self.assertEqual(group.wait(), PEER_LOST, group.log())
        self.assertEqual([group.status(0), group.status(1)], [PEER_LOST, PEER_LOST], group.log())
        self.assertRegex(group.error_line(0)[0], r"^timeout: handshake: .*no progress within .*; not arrived: rank 1 \(at step 0, starting\)")
        self.assertIn("--start-timeout", group.error_line(1)[0])
        self.assert_nothing_left(group)


class Idle(LossTest):
    phase = "idle"

    def test_each_rank_killed_or_stopped_while_all_sleep(self):
        for victim in (0, 1, 2):
            for number in (KILL, STOP):
                with self.subTest(victim=victim, signal=number.name):
                    group = self.start(ranks=max(3, RANKS), grace=1 if number == STOP and victim == 0 else 30)
                    group.await_idle()
                    self.lose(group, victim, number, where=r"^peer_lost: asleep before step \d+: ", end_by_launcher=victim == 0)


class Prefilling(LossTest):
    phase = "prefill"

    def test_each_rank_killed_or_stopped_while_prompts_are_computed(self):
        prompt_tokens = CONTEXT - 8
        for victim in (0, 1):
            for number in (KILL, STOP):
                with self.subTest(victim=victim, signal=number.name):
                    group = self.start()
                    group.await_idle()
                    # Several prompts on each rank: the first of them is far from its first token when the counter has moved.
                    clients = [Client(port, prompt_tokens, 8) for port in group.ports for _ in range(3)]
                    for rank in (0, 1):
                        group.await_condition(lambda rank=rank: group.metric(rank, "lockstep_prompt_tokens_total") > 0, f"rank {rank} to compute a prompt")
                    self.assertEqual(sum(group.metric(rank, "lockstep_generated_tokens_total") for rank in (0, 1)), 0)
                    self.lose(group, victim, number, clients, where=COLLECTIVE)


class Decoding(LossTest):
    phase = "decode"
    options = ()

    def test_each_rank_killed_or_stopped_while_answers_stream(self):
        for victim in (0, 1, 2):
            for number in (KILL, STOP):
                with self.subTest(victim=victim, signal=number.name):
                    group = self.start(*self.options, ranks=max(3, RANKS))
                    group.await_idle()
                    clients = [Client(port, 4, CONTEXT - 8) for port in group.ports]
                    for client in clients:
                        wait_for(lambda client=client: client.tokens > 0, "a first token")
                    self.lose(group, victim, number, clients, where=COLLECTIVE)


class DecodingAgreedAhead(Decoding):
    """The agreement of the next step is under way whenever the blow falls."""

    phase = "decode, agreed ahead"
    options = ("--agreement", "pipelined")


class Draining(LossTest):
    phase = "drain"

    def test_each_rank_killed_or_stopped_while_the_group_drains(self):
        for victim in (0, 1):
            for number in (KILL, STOP):
                with self.subTest(victim=victim, signal=number.name):
                    group = self.start("--drain-timeout", "120s")
                    group.await_idle()
                    clients = [Client(port, 4, CONTEXT - 8) for port in group.ports]
                    for client in clients:
                        wait_for(lambda client=client: client.tokens > 0, "a first token")
                    group.drain()
                    for rank in (0, 1):
                        group.await_state(rank, "draining")
                    self.lose(group, victim, number, clients, where=COLLECTIVE)


class Leaving(LossTest):
    phase = "leaving"

    def test_a_rank_lost_after_the_farewell_does_not_hold_the_others(self):
        for number, bound in [(KILL, SLACK_SECONDS), (STOP, FINALIZE_SECONDS + SLACK_SECONDS)]:
            with self.subTest(signal=number.name):
                group = self.start(fault="hold_before_finalize", fault_rank=1)
                group.await_idle()
                group.drain()
                group.await_condition(lambda group=group: group.body(1).get("phase") == "stopped", "rank 1 to have left its group")
                begin = group.disturb(1, number)
                group.await_statuses([0])
                if number == STOP:
                    group.disturb(1, KILL)
                self.assertEqual(group.wait(), KILLED, group.log())
                row = self.record(f"{self.phase} {number.name}", 1, 0, begin, group)
                # Every request had its answer, and all had agreed to end: for this rank nothing went wrong.
                self.assertEqual(row["status"], 0, group.log())
                self.assertLess(row["left_s"], bound, group.log())
                self.assert_nothing_left(group)


class Stopped(LossTest):
    phase = "resumed"

    def test_for_less_than_the_stall_timeout_loses_nothing(self):
        group = self.start(stall=60)
        group.await_idle()
        clients = [Client(port, 4, 200) for port in group.ports]
        for client in clients:
            wait_for(lambda client=client: client.tokens > 0, "a first token")
        group.disturb(1, STOP)
        group.await_condition(lambda: group.metric(0, "lockstep_peer_heartbeat_age_seconds") > 0.5, "rank 0 to miss heartbeats")
        self.assertEqual(group.health(0)[0], 200)
        group.disturb(1, signal.SIGCONT)
        for client in clients:
            client.join(timeout=60)
            self.assertEqual((client.done, client.tokens, client.error, client.cut), (True, 201, None, None))
        group.drain()
        self.assertEqual(group.wait(), 0, group.log())
        self.assertNotIn(" error ", group.log())

    def test_for_longer_leaves_by_itself_when_it_goes_on(self):
        group = self.start()
        group.await_idle()
        clients = [Client(port, 4, CONTEXT - 8) for port in group.ports]
        for client in clients:
            wait_for(lambda client=client: client.tokens > 0, "a first token")
        group.disturb(1, STOP)
        group.await_statuses([0])
        begin = group.disturb(1, signal.SIGCONT)
        self.assertEqual(group.wait(), PEER_LOST, group.log())
        row = self.record(f"{self.phase} SIGCONT", 0, 1, begin, group)
        self.assertEqual(row["status"], PEER_LOST, group.log())
        self.assertLess(row["left_s"], SLACK_SECONDS)
        self.assertRegex(group.error_line(1)[0], r"\brank 0\b")
        for client in clients:
            client.join(timeout=60)
            self.assertEqual((client.error or {}).get("code"), "rank_lost", client.cut)
        self.assert_nothing_left(group)


if __name__ == "__main__":
    unittest.main()
