#!/usr/bin/env python3
"""Goal    Every shell block of docs/quick-start.md runs as it stands there.
Method  The blocks are read from the page and given to bash, in order, in one folder; only the placeholder of the repository and the port are filled in. What serves
        is asked and then ended by SIGINT, as by Ctrl-C. A block may be left out only by a comment before it that says why."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "e2e"))

from group import LIMIT_SECONDS, complete, descendants, free_ports  # noqa: E402

PAGE = REPOSITORY / "docs" / "quick-start.md"
BLOCK = re.compile(r"(?:<!-- not run by the tests: (?P<reason>[^>]+) -->\n)?```bash\n(?P<text>.*?)```\n", re.DOTALL)


def shell_blocks():
    return [(match["text"], match["reason"]) for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]


class QuickStart(unittest.TestCase):
    def run_block(self, text, folder, url):
        """Starts bash on the block, reads its output up to the URL that `url` matches, asks there, and ends it like Ctrl-C."""
        # git clones from a repository of another user only where its own configuration says so.
        settings = tempfile.NamedTemporaryFile("w", suffix=".gitconfig")
        self.addCleanup(settings.close)
        settings.write("[safe]\n  directory = *\n")
        settings.flush()
        process = subprocess.Popen(["bash", "-e", "-c", text], cwd=folder, env=dict(os.environ, GIT_CONFIG_GLOBAL=settings.name), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, start_new_session=True)
        self.addCleanup(self.end, process)
        seen = []
        for line in process.stdout:  # ends with the block
            seen.append(line)
            served = re.search(url + r"http://127.0.0.1:(\d+)", line)
            if served:
                break
        else:
            self.fail(f"the block served nothing:\n{text}\n{''.join(seen[-50:])}")
        answer = complete(int(served[1]), prompt="In the beginning", max_tokens=4)
        self.assertEqual(answer.status, 200, answer)
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        self.assertEqual(process.wait(timeout=LIMIT_SECONDS), 0, "".join(seen[-20:]) + rest)

    @staticmethod
    def end(process):
        if process.poll() is None:
            for each in [*descendants(process.pid), process.pid]:
                try:
                    os.kill(each, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        process.wait()
        process.stdout.close()

    def test_each_shell_block_runs(self):
        run = [text for text, reason in shell_blocks() if reason is None]
        self.assertEqual(len(run), 2, "a block more or less: see whether this test still does what its reader does")
        with tempfile.TemporaryDirectory() as folder:
            self.run_block(run[0].replace("<this repository>", str(REPOSITORY)), folder, "^curl -s ")
            self.run_block(run[1].replace("--port 8000", f"--port {free_ports(2)}"), pathlib.Path(folder, "lockstep"), "serving tiny-moe at ")


if __name__ == "__main__":
    unittest.main()
