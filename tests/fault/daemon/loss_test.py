#!/usr/bin/env python3
"""Goal    A rank that is killed or stopped, in any phase of its life, ends the others within bounds: each names it, answers every open request with a coded
        error and leaves with the status for a lost peer.
Method  Real processes under lockstep-run. A phase is reached when health, metrics or the kernel's maps say so; then the signal; then status files and logs tell."""

import signal
import unittest

from fault_group import CONTEXT, KILLED, PEER_LOST, SLACK_SECONDS, STALL_SECONDS, START_SECONDS, Client, FaultTest, wait_for

KILL, STOP = signal.SIGKILL, signal.SIGSTOP
# A dead process is known by its connection, a stopped one by its silence.
BOUND = {KILL: SLACK_SECONDS, STOP: STALL_SECONDS + SLACK_SECONDS}
COLLECTIVE = r"^peer_lost in step (\d+), (agreeing|dispatching|combining|computing), layer -?\d+: step \1, (agreement|dispatch|combine)\b"


class LossTest(FaultTest):
    """What is the same in all phases: the blow, and what the survivors must have done."""

    def lose(self, group, victim, number, clients=(), in_step=False, end_by_launcher=False, bound=None, named=True):
        begin = group.disturb(victim, number)
        survivors = [rank for rank in range(group.ranks) if rank != victim]
        group.await_statuses(survivors)
        if number == STOP and not end_by_launcher:
            group.disturb(victim, KILL)
        self.check_clients(group, clients, victim)
        # mpirun hands on what was logged in its own time: all of it is there when it has ended.
        self.assertEqual(group.wait(), group.first_error(), group.log())
        self.assertEqual(group.status(victim), KILLED, group.log())
        for rank in survivors:
            row = self.record(f"{self.phase} {number.name}", victim, rank, begin, group)
            self.assertEqual(row["status"], PEER_LOST, group.log())
            self.assertLess(row["left_s"], bound or BOUND[number], group.log())
            line, _ = group.error_line(rank)
            self.assertIsNotNone(line, group.log())
            if named:
                self.assertRegex(line, rf"\brank {victim}\b")
            if in_step:
                self.assertRegex(line, COLLECTIVE)
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
                group.await_library(1 - victim, "mca_pmix")
                # Nothing but the launcher knows who did not come: there is no connection between the ranks yet.
                self.lose(group, victim, number, bound=START_SECONDS + SLACK_SECONDS, named=False)

    def test_a_rank_that_dies_or_stops_inside_mpi_init_ends_the_others_within_the_start_timeout(self):
        for victim, number in [(0, STOP), (1, KILL)]:
            with self.subTest(victim=victim, signal=number.name):
                # The last rank keeps the others inside until the victim is hit, then comes.
                group = self.start(ranks=3, fault="hold_before_communicator", fault_rank=2)
                for rank in (0, 1):
                    group.await_library(rank, "mca_pmix")
                group.disturb(victim, number)
                group.release()
                self.lose(group, victim, number, bound=START_SECONDS + SLACK_SECONDS, named=False)

    def test_a_rank_that_never_comes_ends_with_the_others(self):
        group = self.start(fault="hold_before_communicator", fault_rank=1)
        group.pid(0), group.pid(1)
        group.await_statuses([0, 1])
        self.assertEqual([group.status(0), group.status(1)], [PEER_LOST, PEER_LOST], group.log())
        for rank in (0, 1):
            self.assertIn("--start-timeout" if rank == 1 else "MPI_Init", group.error_line(rank)[0])
        self.assertEqual(group.wait(), PEER_LOST)
        self.assert_nothing_left(group)


class WhileLoading(LossTest):
    phase = "loading"

    def test_each_rank_killed_or_stopped_while_it_loads(self):
        for victim in (0, 1):
            for number in (KILL, STOP):
                with self.subTest(victim=victim, signal=number.name):
                    group = self.start(fault="hold_before_load", fault_rank=victim)
                    group.pid(0), group.pid(1)
                    group.await_state(1 - victim, "loading", "warming")
                    self.assertEqual(group.health(victim)[1]["state"], "init")
                    self.lose(group, victim, number)


class Idle(LossTest):
    phase = "idle"

    def test_each_rank_killed_or_stopped_while_all_sleep(self):
        for victim in (0, 1, 2):
            for number in (KILL, STOP):
                with self.subTest(victim=victim, signal=number.name):
                    group = self.start(ranks=3, grace=1 if number == STOP and victim == 0 else 30)
                    group.await_idle()
                    self.lose(group, victim, number, end_by_launcher=victim == 0)


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
                    self.lose(group, victim, number, clients, in_step=True)


class Decoding(LossTest):
    phase = "decode"

    def test_each_rank_killed_or_stopped_while_answers_stream(self):
        for victim in (0, 1, 2):
            for number in (KILL, STOP):
                with self.subTest(victim=victim, signal=number.name):
                    group = self.start(ranks=3)
                    group.await_idle()
                    clients = [Client(port, 4, CONTEXT - 8) for port in group.ports]
                    for client in clients:
                        wait_for(lambda client=client: client.tokens > 0, "a first token")
                    self.lose(group, victim, number, clients, in_step=True)


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
                    self.lose(group, victim, number, clients, in_step=True)


if __name__ == "__main__":
    unittest.main()
