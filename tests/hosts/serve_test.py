#!/usr/bin/env python3
"""Goal    Two hosts serve as one group: requests on both, the answer of one rank alone, a drain that reaches both.
Method  mpirun across network namespaces; every answer is compared with that of a daemon without peers."""

import contextlib
import subprocess
import unittest

import network
from hosts_group import BINARY, HostsTest, Stream, call, wait_for

PROMPTS = ["And the LORD spake unto Moses, saying,", "In the beginning", "Blessed are the meek: for they shall inherit the earth. " * 6]
PORT_ALONE = 9000


class Serve(HostsTest):
    def answers_of(self, address, port):
        answers = []
        for prompt in PROMPTS:
            body = {"prompt": prompt, "max_tokens": 48, "temperature": 0, "ignore_eos": True}
            status, answer = call(address, "POST", "/v1/completions", body, port=port)
            self.assertEqual(status, 200, answer)
            answers.append(answer["choices"][0])
        return answers

    def answers_of_one_rank_alone(self):
        host = self.network.hosts["a"]
        daemon = subprocess.Popen(host.command(BINARY, "--host", "0.0.0.0", "--port", str(PORT_ALONE)), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def ready():
            with contextlib.suppress(OSError):
                return call(host.address, "GET", "/ready", port=PORT_ALONE)[0] == 200
            return False

        try:
            wait_for(ready, "the daemon without peers")
            return self.answers_of(host.address, PORT_ALONE)
        finally:
            daemon.kill()
            daemon.wait()

    def assert_drained(self, group):
        self.assertEqual(group.wait(), 0, group.log())
        self.assertEqual([group.recorded(0), group.recorded(1)], [0, 0], group.log())
        self.assertEqual(group.complaints(), [], group.log())

    def test_both_hosts_give_the_answers_of_one_rank_alone(self):
        expected = self.answers_of_one_rank_alone()
        group = self.start()
        for rank in (0, 1):
            self.assertEqual(self.answers_of(group.addresses[rank], 8000), expected)
        group.drain()
        self.assert_drained(group)

    def test_a_drain_lets_streams_on_both_hosts_end(self):
        group = self.start()
        streams = [Stream(address, prompt=PROMPTS[0], max_tokens=400) for address in group.addresses]
        for stream in streams:
            group.await_condition(lambda stream=stream: stream.tokens > 0, "a first token")
        group.drain()
        for stream in streams:
            stream.join(timeout=60)
            self.assertEqual((stream.done, stream.error, stream.cut), (True, None, None), group.log())
        self.assert_drained(group)

    def test_statuses_in_a_folder_that_all_hosts_share_are_those_of_the_ranks(self):
        group = self.start(status_dir=network.SHARED / "status")
        group.drain()
        self.assert_drained(group)


class BesideOtherInterfaces(HostsTest):
    settings = {"decoy": True}

    def test_ranks_find_each_other_in_the_network_that_is_named(self):
        group = self.start("--peer-bind", "10.77.0.0/24")
        self.assertEqual(group.complete(0, prompt=PROMPTS[0], max_tokens=8)[0], 200)
        group.drain()
        self.assertEqual(group.wait(), 0, group.log())


if __name__ == "__main__":
    network.enter_cluster()
    unittest.main()
