#!/usr/bin/env python3
"""Goal    What broke other servers breaks nothing here: each hostile request gets its refusal or its end, the daemon's memory stays bounded, and others are served meanwhile.
Method  One daemon; raw sockets send what no library would. After each case a plain request must work, and at the end the memory is read from /proc."""

import contextlib
import json
import pathlib
import re
import socket
import unittest

from group import HOST, LIMIT_SECONDS, Group, GroupTest, call, complete, wait_for

MEBIBYTE = 1 << 20


def send(port, data):
    """All that the daemon answers to `data` until it closes the connection."""
    with socket.create_connection((HOST, port), timeout=LIMIT_SECONDS) as connection:
        with contextlib.suppress(OSError):  # it may close before it has read everything
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


def status_of(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


def post(body, *headers):
    lines = ["POST /v1/completions HTTP/1.1", "Host: t", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def sized(body):
    return post(body, f"Content-Length: {len(body)}", "Connection: close")


def resident_bytes(process):
    return int(re.search(r"VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{process}/status").read_text()).group(1)) * 1024


class Abuse(GroupTest):
    options = ("--access-log", "off")

    @classmethod
    def setUpClass(cls):
        cls.group = Group(*cls.options, ranks=1)
        complete(cls.group.port, prompt="a", max_tokens=2)
        cls.before = resident_bytes(cls.group.process.pid)

    def tearDown(self):
        self.assertEqual(complete(self.group.port, prompt="a", max_tokens=2).status, 200, "others are served")
        self.assertLess(resident_bytes(self.group.process.pid) - self.before, 64 * MEBIBYTE)

    def assert_refused(self, data, *statuses):
        answer = send(self.group.port, data)
        self.assertIn(status_of(answer), statuses, answer[:300])
        for inside in (b"std::", b"boost", b".cpp", b"/work", b"0x"):
            self.assertNotIn(inside, answer, "errors carry no internals")

    def test_millions_of_chunks_of_one_byte(self):
        self.assert_refused(post(b"1\r\n \r\n" * 1_000_000, "Transfer-Encoding: chunked"), 413)

    def test_ten_thousand_headers_and_one_of_64_kilobytes(self):
        self.assert_refused(post(b"", *[f"x-{i}: y" for i in range(10_000)]), 431)
        self.assert_refused(post(b"", "x: " + "y" * 65536), 431)

    def test_lengths_that_can_be_read_in_two_ways(self):
        inner = b"0\r\n\r\nGET /version HTTP/1.1\r\nHost: t\r\n\r\n"
        for headers in (["Content-Length: 5", "Transfer-Encoding: chunked"], ["Content-Length: 5", "Content-Length: 6"], ["Transfer-Encoding: chunked, identity"],
                        ["Content-Length: 0x5"], ["Content-Length: +5"], ["Transfer-Encoding : chunked"]):  # fmt: skip
            answer = send(self.group.port, post(inner, *headers))
            self.assertIn(status_of(answer), (400, 501), headers)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 1, "what follows is no request of its own")

    def test_numbers_that_are_none_or_too_large(self):
        for field in ("max_tokens", "n", "logprobs", "seed", "top_k", "temperature", "top_p", "min_tokens"):
            for number in ("NaN", "Infinity", "-1e999", "1e999", "-9223372036854775809", "18446744073709551616", "2147483648.5", '"7"', "1e-400e1"):
                body = f'{{"prompt": "a", "max_tokens": 1, "{field}": {number}}}'.encode()
                with self.subTest(field=field, number=number):
                    self.assert_refused(sized(body), 400)

    def test_json_of_a_million_levels(self):
        for opening in (b"[", b'{"a":'):
            self.assert_refused(sized(b'{"prompt": ' + opening * (1_000_000 // len(opening)) + b"}"), 400)

    def test_text_that_is_not_utf_8(self):
        for bad in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\x00"):
            self.assert_refused(sized(b'{"prompt": "' + bad + b'"}'), 400)
        for bad in (b'"\\ud800"', b'"\\udc00\\ud800"'):
            self.assert_refused(sized(b'{"prompt": ' + bad + b"}"), 400)

    def test_line_breaks_in_what_is_sent_back(self):
        answer = send(self.group.port, b"GET /version HTTP/1.1\r\nHost: t\r\nx-request-id: a\x0d\x0aSet-Cookie: b=c\r\nConnection: close\r\n\r\n")
        self.assertNotIn(b"set-cookie", answer.lower())
        answer = send(self.group.port, b"GET /v1/models/a%0d%0aSet-Cookie:%20b HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        self.assertEqual(status_of(answer), 404)
        self.assertNotIn(b"set-cookie", answer.lower())
        for bare in (b"x-request-id: a\rb", b"x-request-id: a\x00b", b"x-request-id: a\nb"):
            answer = send(self.group.port, b"GET /version HTTP/1.1\r\nHost: t\r\n" + bare + b"\r\nConnection: close\r\n\r\n")
            self.assertEqual(status_of(answer), 400, bare)

    def test_a_page_that_makes_its_name_point_here(self):
        for host in (b"evil.example", b"evil.example:8000", b"localhost.evil.example"):
            for path in (b"/v1/models", b"/metrics", b"/health"):
                self.assert_refused(b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", 403)
        for host in (b"localhost", b"127.0.0.1:1", b"[::1]", b"lockstep:8000"):
            answer = send(self.group.port, b"GET /v1/models HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
            self.assertEqual(status_of(answer), 200, host)

    def test_many_clients_that_send_a_byte_and_wait(self):
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                slow = stack.enter_context(socket.create_connection((HOST, self.group.port), timeout=LIMIT_SECONDS))
                slow.sendall(b"P")
            for path in ("/health", "/ready", "/metrics"):
                self.assertEqual(call(self.group.port, "GET", path).status, 200)
            self.assertEqual(complete(self.group.port, prompt="a", max_tokens=2).status, 200)

    def test_clients_that_end_their_sending_side_get_their_answer(self):
        for stream, end in ((b"false", b'"finish_reason":"length"'), (b"true", b"data: [DONE]\n\n")):
            body = b'{"prompt": "a", "max_tokens": 20, "ignore_eos": true, "stream": ' + stream + b"}"
            with socket.create_connection((HOST, self.group.port), timeout=LIMIT_SECONDS) as connection:
                connection.sendall(sized(body))
                connection.shutdown(socket.SHUT_WR)
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
            self.assertIn(b"HTTP/1.1 200 OK", answer)
            self.assertIn(end, answer)

    def test_clients_that_never_read_their_stream(self):
        """More of them than a step has places: each gives its own back with its last token, read or not, and long before it would be cut off."""
        body = json.dumps({"prompt": "a", "max_tokens": 200, "ignore_eos": True, "temperature": 0, "stream": True, "logprobs": 20}).encode()
        with contextlib.ExitStack() as stack:
            for _ in range(80):
                deaf = stack.enter_context(socket.create_connection((HOST, self.group.port), timeout=LIMIT_SECONDS))
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                deaf.sendall(post(body, f"Content-Length: {len(body)}"))
            self.assertEqual(complete(self.group.port, prompt="a", max_tokens=2).status, 200)
            self.assertRegex(call(self.group.port, "GET", "/metrics").text, r'(?m)^lockstep_http_rejected_total\{.*reason="slow_reader".*\} 0$')
        wait_for(lambda: re.search(r"^lockstep_requests_running\{[^}]*\} 0$", call(self.group.port, "GET", "/metrics").text, re.MULTILINE), "their requests to end")


if __name__ == "__main__":
    unittest.main()
