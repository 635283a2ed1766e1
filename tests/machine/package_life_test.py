#!/usr/bin/env python3
"""Goal    The package starts the service when it is installed, keeps what an administrator changed when it is upgraded, and leaves nothing when it is purged.
Method  dpkg on a booted Debian, with the package and with the same content under a later version."""

import pathlib
import tempfile
import unittest

from machine import HAS_PLUGINS, Machine, build_packages, complete

LATER = "99.0"
CONFIGURATION = "port = 8123\nmax-num-seqs = 7\n"


class PackageLife(unittest.TestCase):
    def setUp(self):
        self.machine = Machine()
        self.addCleanup(self.machine.close)
        self.before = self.files()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        (pathlib.Path(folder.name) / "now").mkdir()
        (pathlib.Path(folder.name) / "later").mkdir()
        self.packages = build_packages(f"{folder.name}/now")
        self.later_packages = build_packages(f"{folder.name}/later", LATER)
        self.package, self.later = self.packages["lockstep"], self.later_packages["lockstep"]

    def files(self):
        return set(self.machine.run("find", "/usr", "/etc", "/var/lib", "/opt", "-name", "*lockstep*").split())

    def assert_active(self, port):
        self.assertEqual(self.machine.property("ActiveState"), "active", self.machine.run("journalctl", "--unit=lockstep", "--no-pager"))
        self.assertEqual(complete(port, prompt="In the beginning", max_tokens=2).status, 200)

    def test_from_installation_to_purge(self):
        self.machine.install(self.package)
        self.assert_active(8000)
        self.assertEqual(self.machine.run("systemctl", "is-enabled", "lockstep").strip(), "enabled")
        self.assertEqual(self.machine.run("stat", "--format=%a %U %G", "/etc/lockstep").strip(), "750 root lockstep")

        self.machine.write("/etc/lockstep/lockstep.conf", CONFIGURATION)
        self.machine.install(self.later)
        self.assertEqual(self.machine.run("dpkg-query", "--show", "--showformat=${Version}", "lockstep"), LATER)
        self.assertEqual((self.machine.root / "etc/lockstep/lockstep.conf").read_text(), CONFIGURATION)
        self.assert_active(8123)  # so it was restarted, and reads it

        self.machine.run("systemctl", "disable", "--now", "lockstep")
        self.machine.install(self.later)
        self.assertEqual(self.machine.run("systemctl", "is-enabled", "lockstep", check=False).strip(), "disabled")

        self.machine.run("systemctl", "enable", "lockstep@prod")
        self.machine.run("dpkg", "--remove", "lockstep")
        self.assertTrue((self.machine.root / "etc/lockstep/lockstep.conf").exists())
        self.assertEqual(self.machine.ranks(), [])

        self.machine.run("dpkg", "--purge", "lockstep")
        self.assert_nothing_is_left()

    def assert_nothing_is_left(self):
        self.assertEqual({path for path in self.files() if not path.startswith("/var/lib/dpkg/")}, {path for path in self.before if not path.startswith("/var/lib/dpkg/")})
        self.assertEqual(self.machine.run("getent", "passwd", "lockstep", check=False), "")
        self.assertEqual(self.machine.run("getent", "group", "lockstep", check=False), "")

    @unittest.skipUnless(HAS_PLUGINS, "no CUDA toolkit: no plugins")
    def test_with_the_plugins_on_a_host_without_the_cuda_runtime(self):
        self.machine.install(self.packages["lockstep-cuda"], self.package)
        self.machine.write("/etc/lockstep/lockstep.conf", "device = auto\n")
        cursor = self.machine.cursor()
        self.machine.run("systemctl", "restart", "lockstep")
        self.assert_active(8000)
        # Said by the unit's check, and by the start, each in one line.
        said = [line.split(" info ")[1] for line in self.machine.journal(cursor).splitlines() if "computing on cpu" in line]
        self.assertEqual((len(said), len(set(said))), (2, 1), said)
        self.assertRegex(said[0], r"computing on cpu: cuda: the CUDA backend cannot be loaded: libcudart\.so\.13: .*needs the CUDA 13 runtime")

        self.machine.install(self.later, self.later_packages["lockstep-cuda"])
        self.assertEqual(self.machine.run("dpkg-query", "--show", "--showformat=${Version} ", "lockstep", "lockstep-cuda").split(), [LATER, LATER])
        self.assert_active(8000)

        self.machine.run("dpkg", "--purge", "lockstep-cuda", "lockstep")
        self.assert_nothing_is_left()


if __name__ == "__main__":
    unittest.main()
