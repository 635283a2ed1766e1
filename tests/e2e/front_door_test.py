#!/usr/bin/env python3
"""Goal    What surrounds the API holds on a real daemon: TLS and its reload on every rank, Unix sockets, sockets of a service manager, metrics apart, the access log.
Method  curl and Python's own TLS against groups started by lockstep-run; certificates are made here by openssl."""

import contextlib
import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import unittest

from group import BINARY, HOST, LIMIT_SECONDS, RANKS, Group, Stream, call, complete, daemon_environment, free_ports, wait_for

BODY = '{"prompt": "In the beginning", "max_tokens": 3}'

# Becomes the daemon after handing it the listening socket as a service manager would.
ACTIVATE = """
import os, sys
os.environ["LISTEN_PID"] = sys.argv[2] if sys.argv[2] != "own" else str(os.getpid())
os.environ["LISTEN_FDS"] = "1"
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.execv(sys.argv[3], sys.argv[3:])
"""


def curl(*arguments):
    """Body and status of a request; what curl itself complains of fails the test."""
    done = subprocess.run(["curl", "-sS", "-w", "\\n%{http_code}", *arguments], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=True)
    body, _, status = done.stdout.rpartition("\n")
    return body, int(status)


def write_pair(folder, name):
    """A key and a certificate for 127.0.0.1 that it signs itself; each file comes whole or not at all."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName=IP:{HOST}", "-keyout", folder / "new.key", "-out", folder / "new.pem"],
                   capture_output=True, check=True)  # fmt: skip
    os.replace(folder / "new.key", folder / "server.key")
    os.replace(folder / "new.pem", folder / "server.pem")


def peer_certificate(port):
    return ssl.get_server_certificate((HOST, port))


class TemporaryFolder(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def start(self, *options, **more):
        group = type(self).group_type(*options, **more)
        self.addCleanup(group.close)
        return group

    group_type = Group

    def assert_drains(self, group, allowed=()):
        group.drain()
        self.assertEqual(group.wait(), 0, group.log())
        self.assertEqual([line for line in group.complaints() if not any(word in line for word in allowed)], [])


class SecureGroup(Group):
    def is_ready(self, port):
        if self.process.poll() is not None:
            raise AssertionError(self.log())
        connection = http.client.HTTPSConnection(HOST, port, timeout=LIMIT_SECONDS, context=ssl._create_unverified_context())
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200


class Tls(TemporaryFolder):
    group_type = SecureGroup

    def setUp(self):
        super().setUp()
        write_pair(self.folder, "first")
        self.certificate = self.folder / "server.pem"
        self.group = self.start("--tls-cert", str(self.certificate), "--tls-key", str(self.folder / "server.key"))

    def complete(self, port):
        return curl("--cacert", str(self.certificate), "-H", "Content-Type: application/json", "-d", BODY, f"https://{HOST}:{port}/v1/completions")

    def test_is_served_by_every_rank_and_plain_text_is_not(self):
        for port in self.group.ports:
            body, status = self.complete(port)
            self.assertEqual(status, 200, body)
            with self.assertRaises((OSError, http.client.HTTPException)):
                call(port, "GET", "/health")
        self.assert_drains(self.group)

    def test_certificate_is_replaced_on_every_rank_without_dropping_a_connection(self):
        kept = [http.client.HTTPSConnection(HOST, port, timeout=LIMIT_SECONDS, context=ssl._create_unverified_context()) for port in self.group.ports]
        for connection in kept:
            self.addCleanup(connection.close)
            connection.request("GET", "/health")
            self.assertEqual(connection.getresponse().read()[:1], b"{")
        write_pair(self.folder, "second")
        second = self.certificate.read_text()
        self.group.process.send_signal(signal.SIGUSR2)
        for port in self.group.ports:
            wait_for(lambda port=port: peer_certificate(port) == second, "the new certificate")
            self.assertEqual(self.complete(port)[1], 200)
        self.certificate.write_text("no certificate")
        self.group.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: self.group.log().count("the certificate stays as it was") == self.group.ranks, "all ranks to refuse the bad pair")
        for port, connection in zip(self.group.ports, kept, strict=True):
            self.assertEqual(peer_certificate(port), second)
            connection.request("GET", "/health")
            self.assertEqual(connection.getresponse().status, 200)
            connection.close()
        self.assert_drains(self.group, allowed=["the certificate stays as it was"])


class UnixSocketGroup(Group):
    """Is asked over its sockets, as it has no ports."""

    def __init__(self, path, *options):
        self.paths = [path, *(f"{path}.{rank}" for rank in range(1, RANKS))]
        super().__init__("--unix-socket", path, *options)

    def is_ready(self, port):
        if self.process.poll() is not None:
            raise AssertionError(self.log())
        path = self.paths[port - self.port]
        return os.path.exists(path) and curl("--unix-socket", path, "http://lockstep/ready")[1] == 200


class UnixSocket(TemporaryFolder):
    group_type = UnixSocketGroup

    def test_is_served_by_every_rank_under_its_own_name_and_removed_at_the_end(self):
        path = str(self.folder / "http.sock")
        group = self.start(path)
        for each in group.paths:
            body, status = curl("--unix-socket", each, "-H", "Content-Type: application/json", "-d", BODY, "http://lockstep/v1/completions")
            self.assertEqual(status, 200, body)
        with self.assertRaises(OSError):
            socket.create_connection((HOST, group.port)).close()
        self.assert_drains(group)
        self.assertEqual(list(self.folder.iterdir()), [])


class SocketActivation(unittest.TestCase):
    def start(self, owner, *options):
        listening = socket.create_server((HOST, 0))
        self.addCleanup(listening.close)
        log = tempfile.TemporaryFile(mode="w+")
        self.addCleanup(log.close)
        command = [sys.executable, "-c", ACTIVATE, str(listening.fileno()), owner, BINARY, *options]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=daemon_environment(), pass_fds=[listening.fileno()])

        def end():
            process.kill()
            process.wait()

        self.addCleanup(end)
        return process, listening.getsockname()[1], log

    @staticmethod
    def text(log):
        log.seek(0)
        return log.read()

    def test_serves_the_handed_over_socket_and_a_client_that_came_before_it(self):
        process, port, log = self.start("own", "--port", "1")  # which nobody may open, and nobody does
        answer = call(port, "GET", "/health")  # waits in the socket's queue until the daemon accepts
        self.assertEqual(answer.status, 200, self.text(log))
        wait_for(lambda: call(port, "GET", "/ready").status == 200, "the daemon to be ready")
        self.assertEqual(complete(port, prompt="a", max_tokens=2).status, 200)
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(timeout=LIMIT_SECONDS), 0, self.text(log))

    def test_leaves_another_processs_sockets_alone(self):
        own_port = free_ports(1)
        process, _, log = self.start("1", "--port", str(own_port))

        def is_ready():
            with contextlib.suppress(OSError):
                return call(own_port, "GET", "/ready").status == 200

        wait_for(is_ready, "the daemon to be ready on its own port")
        self.assertIn("LISTEN_FDS is set for process 1", self.text(log))
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(timeout=LIMIT_SECONDS), 0, self.text(log))

    def test_under_a_launcher_is_refused(self):
        environment = daemon_environment(LISTEN_FDS="1", LISTEN_PID="1", OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_SIZE="2",
                                         OMPI_COMM_WORLD_LOCAL_RANK="0", OMPI_COMM_WORLD_LOCAL_SIZE="2")  # fmt: skip
        done = subprocess.run([BINARY, "--port", "0"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment, check=False)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("mpirun", done.stderr)
        self.assertIn("LISTEN_FDS", done.stderr)


class Surroundings(TemporaryFolder):
    def test_metrics_and_probes_have_an_address_of_their_own_and_keys_do_not_close_them(self):
        keys = self.folder / "keys"
        keys.write_text("key-of-a-file\n")
        keys.chmod(0o600)
        metrics_port = free_ports(4)
        group = self.start("--metrics-address", f"{HOST}:{metrics_port}", "--api-key-file", str(keys), "--api-key", "first,second")
        for rank, port in enumerate(group.ports):
            self.assertEqual(call(port, "GET", "/metrics").status, 401)
            apart = call(metrics_port + rank, "GET", "/metrics")
            self.assertEqual(apart.status, 200)
            self.assertIn(f'lockstep_build_info{{rank="{rank}"', apart.text)
            self.assertEqual(call(metrics_port + rank, "GET", "/ready").status, 200)
            self.assertEqual(call(metrics_port + rank, "GET", "/v1/models").status, 404)
            for key in ("first", "second", "key-of-a-file"):
                self.assertEqual(call(port, "GET", "/v1/models", headers={"Authorization": f"Bearer {key}"}).status, 200)
                self.assertEqual(call(port, "GET", "/metrics", headers={"Authorization": f"Bearer {key}"}).status, 404)
        keys.write_text("new-key\n")
        group.process.send_signal(signal.SIGUSR2)
        for port in group.ports:
            wait_for(lambda port=port: call(port, "GET", "/v1/models", headers={"Authorization": "Bearer new-key"}).status == 200, "the new key")
            self.assertEqual(call(port, "GET", "/v1/models", headers={"Authorization": "Bearer key-of-a-file"}).status, 401)
        self.assertNotIn("key-of-a-file", group.log())
        self.assert_drains(group)

    def test_one_request_more_than_may_be_open_is_429_with_retry_after_and_the_place_is_free_again_later(self):
        group = self.start("--max-pending", "1", ranks=1)
        stream = Stream(group.port, prompt="In the beginning", max_tokens=400, temperature=0, ignore_eos=True)
        events = iter(stream)
        next(events)
        refused = complete(group.port, prompt="a", max_tokens=1)
        self.assertEqual(refused.status, 429, refused.text)
        self.assertEqual(refused.json["error"]["type"], "rate_limit_error")
        self.assertGreaterEqual(int(refused.headers["Retry-After"]), 1)
        for _ in events:
            pass
        stream.close()
        wait_for(lambda: complete(group.port, prompt="a", max_tokens=1).status == 200, "the place to be free")
        self.assert_drains(group)

    def test_answer_beyond_the_request_timeout_ends_and_frees_its_blocks(self):
        # 1 ms is over before 400 tokens are made, on any machine.
        group = self.start("--request-timeout", "1ms", ranks=1)
        answer = complete(group.port, prompt="In the beginning", max_tokens=400, temperature=0, ignore_eos=True)
        self.assertEqual(answer.status, 504, answer.text)
        self.assertEqual(answer.json["error"]["code"], "request_timeout")
        wait_for(lambda: re.search(r"^lockstep_requests_running\{[^}]*\} 0$", call(group.port, "GET", "/metrics").text, re.MULTILINE), "the request to end")
        self.assert_drains(group)

    def test_access_log_has_a_line_for_each_request_and_no_word_of_users(self):
        group = self.start(ranks=1)
        secret = "a secret that nobody may read"
        answer = call(group.port, "POST", "/v1/completions", {"prompt": secret, "max_tokens": 2}, {"Content-Type": "application/json", "x-request-id": "my-id"})
        self.assertEqual(answer.status, 200)
        self.assertEqual(call(group.port, "GET", "/nowhere?" + "secret=1").status, 404)
        line = r"info \[rank 0/1\] access remote=127\.0\.0\.1:\d+ method=POST route=/v1/completions status=200 bytes=\d+ seconds=\d+\.\d+ request_id=my-id"
        wait_for(lambda: "route=none status=404" in group.log(), "the second line")
        self.assertEqual(len(re.findall(line, group.log())), 1)
        self.assertNotIn("secret", group.log())
        self.assertNotIn("route=/ready status=200", group.log())
        self.assert_drains(group)

    def test_compressed_metrics_are_the_same_and_curl_unpacks_them(self):
        group = self.start(ranks=1)
        body, status = curl("--compressed", "-D", str(self.folder / "head"), f"http://{HOST}:{group.port}/metrics")
        self.assertEqual(status, 200)
        self.assertIn("content-encoding: gzip", (self.folder / "head").read_text().lower())
        self.assertIn("lockstep_build_info{", body)
        self.assert_drains(group)


if __name__ == "__main__":
    unittest.main()
