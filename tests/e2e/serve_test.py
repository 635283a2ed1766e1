#!/usr/bin/env python3
"""Goal    What a newcomer does works to the letter: ./dev serve, the printed curl line, Ctrl-C.
Method  The script in a session of its own, as in a terminal; its output is read for the curl line, which a shell then runs."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import unittest

from group import HOST, LIMIT_SECONDS, REPOSITORY, descendants

COMMAND = [str(REPOSITORY / "dev"), "serve"]


def run_curl(line):
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, timeout=LIMIT_SECONDS)
    return json.loads(done.stdout)


class DevServe(unittest.TestCase):
    def start(self, *arguments):
        process = subprocess.Popen([*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            for each in [*descendants(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
        process.wait()
        process.stdout.close()

    def curl_line_of(self, process):
        seen = []
        for line in process.stdout:  # ends with the script at the latest, and that is bounded
            seen.append(line)
            if line.startswith("curl "):
                return line.strip()
        self.fail("no curl line:\n" + "".join(seen))

    def test_prints_a_curl_line_that_works_as_it_is_and_drains_on_ctrl_c(self):
        process = self.start()
        answer = run_curl(self.curl_line_of(process))
        self.assertTrue(answer["choices"][0]["text"])
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does
        output = process.stdout.read()
        self.assertEqual(process.wait(timeout=LIMIT_SECONDS), 0, output)

    def test_takes_other_ports_when_8000_is_taken(self):
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # whoever else has it does as well
                taken.bind((HOST, 8000))
                taken.listen()
            process = self.start("--ranks", "1")
            line = self.curl_line_of(process)
            self.assertNotIn(":8000/", line)
            self.assertTrue(run_curl(line)["choices"][0]["text"])
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(timeout=LIMIT_SECONDS), 0)

    def test_says_why_when_an_option_is_wrong(self):
        process = self.start("--stall-timeout", "never")
        output = process.stdout.read()
        self.assertNotEqual(process.wait(timeout=LIMIT_SECONDS), 0)
        self.assertIn("stall-timeout", output)
        self.assertNotIn("draining", output)

    def test_names_an_option_without_a_value(self):
        for option in ("--ranks", "--port", "--host"):
            process = self.start(option)
            output = process.stdout.read()
            self.assertEqual(process.wait(timeout=LIMIT_SECONDS), 1)
            self.assertIn(f"dev: serve: {option} needs a value", output)

    def test_serves_on_an_ipv6_address_and_chooses_a_port_for_0(self):
        host = "::1"
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind((host, 0))
            except OSError:  # a machine without IPv6: the port is still to be chosen
                host = HOST
        process = self.start("--ranks", "1", "--host", host, "--port", "0", "--once")
        output = process.stdout.read()
        self.assertEqual(process.wait(timeout=LIMIT_SECONDS), 0, output)
        self.assertIn('"text_completion"', output)

    def test_asks_itself_the_printed_line_when_told_to_serve_once(self):
        process = self.start("--once")
        output = process.stdout.read()
        self.assertEqual(process.wait(timeout=LIMIT_SECONDS), 0, output)
        self.assertIn('"text_completion"', output)


if __name__ == "__main__":
    unittest.main()
