#!/usr/bin/env python3
"""Goal    The packages are complete and proper: a user finds daemon, launcher, model, units, pages and configuration; nothing of the library is in the daemon's.
Method  cpack in the build folder, then dpkg-deb reads what came out."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

BUILD = pathlib.Path(os.environ["LOCKSTEP_BUILD"])
HAS_PLUGINS = os.environ["LOCKSTEP_PLUGINS"] == "1"
LIMIT_SECONDS = 300
# What plugins are linked to and Debian does not have: NVIDIA's installers bring it.
OF_NVIDIA = {"libcudart.so.13", "libnccl.so.2"}

EXPECTED = """
/etc/default/lockstep /etc/lockstep/lockstep.conf /usr/bin/lockstep-run /usr/bin/lockstepd /usr/lib/lockstep/lockstep-service
/usr/lib/systemd/system/lockstep.service /usr/lib/systemd/system/lockstep@.service /usr/lib/sysusers.d/lockstep.conf /usr/lib/tmpfiles.d/lockstep.conf
/usr/share/bash-completion/completions/lockstepd /usr/share/bash-completion/completions/lockstep-run
/usr/share/zsh/vendor-completions/_lockstepd /usr/share/zsh/vendor-completions/_lockstep-run
/usr/share/fish/vendor_completions.d/lockstepd.fish /usr/share/fish/vendor_completions.d/lockstep-run.fish
/usr/share/man/man8/lockstepd.8 /usr/share/man/man1/lockstep-run.1 /usr/share/lockstep/systemd/gpu.conf
/usr/share/lockstep/models/tiny-moe/config.json /usr/share/lockstep/models/tiny-moe/model.safetensors /usr/share/lockstep/models/tiny-moe/tokenizer.json
/usr/share/lockstep/monitoring/rules.yml /usr/share/lockstep/monitoring/dashboard.json /usr/share/lockstep/monitoring/prometheus.yml
/usr/share/doc/lockstep/copyright /usr/share/doc/lockstep/CHANGELOG.md
""".split()


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=True, **options).stdout


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        run("cpack", "--config", str(BUILD / "CPackConfig.cmake"), "-B", folder.name, cwd=BUILD)
        cls.packages = {path.name.split("_")[0]: path for path in pathlib.Path(folder.name).glob("*.deb")}

    def listing(self, package):
        """{path: (mode, owner)} of the files, without folders."""
        lines = (line.split(None, 5) for line in run("dpkg-deb", "-c", str(self.packages[package])).splitlines())
        return {line[5].lstrip("."): (line[0], line[1]) for line in lines if not line[0].startswith("d")}

    def field(self, package, name):
        return run("dpkg-deb", "-f", str(self.packages[package]), name).strip()

    def test_are_two_and_a_third_where_plugins_are_built(self):
        self.assertEqual(sorted(self.packages), ["liblockstep-dev", "lockstep", *(["lockstep-cuda"] if HAS_PLUGINS else [])])

    def test_of_the_daemon_holds_what_is_listed_and_no_library(self):
        paths = set(self.listing("lockstep"))
        self.assertLessEqual(set(EXPECTED), paths)
        self.assertFalse([path for path in paths if "/include/" in path or path.endswith((".a", ".cmake", ".pc", ".hpp"))])

    def test_of_the_library_holds_nothing_else(self):
        paths = set(self.listing("liblockstep-dev"))
        self.assertTrue(any(path.endswith("/lockstepConfig.cmake") for path in paths))
        self.assertFalse([path for path in paths if not path.startswith(("/usr/include/lockstep/", "/usr/lib/", "/usr/share/"))])
        self.assertFalse(paths & set(self.listing("lockstep")))

    def test_belong_to_root_and_are_writable_by_nobody_else(self):
        for package in self.packages:
            for path, (mode, owner) in self.listing(package).items():
                self.assertEqual(owner, "root/root", path)
                self.assertEqual((mode[5], mode[8]), ("-", "-"), f"{path} {mode}")

    def test_run_programs_and_nothing_else(self):
        programs = {path for path, (mode, _) in self.listing("lockstep").items() if "x" in mode}
        self.assertEqual(programs, {"/usr/bin/lockstepd", "/usr/bin/lockstep-run", "/usr/lib/lockstep/lockstep-service"})

    def test_mark_everything_in_etc_as_configuration(self):
        with tempfile.TemporaryDirectory() as folder:
            run("dpkg-deb", "-e", str(self.packages["lockstep"]), folder)
            marked = set(pathlib.Path(folder, "conffiles").read_text().split())
        self.assertEqual(marked, {path for path in self.listing("lockstep") if path.startswith("/etc/")})

    def test_depend_on_what_they_run_and_are_linked_to(self):
        depends = re.split(r", *", self.field("lockstep", "Depends"))
        names = {re.split(r"[ :(]", entry)[0] for entry in depends}
        self.assertLessEqual({"openmpi-bin", "systemd", "libopenmpi3", "libdnnl2", "libc6"}, names)
        self.assertFalse([name for name in names if name.endswith("-dev")])

    def test_of_the_daemon_serves_the_embedded_model_from_where_it_was_unpacked(self):
        with tempfile.TemporaryDirectory() as folder:
            run("dpkg-deb", "-x", str(self.packages["lockstep"]), folder)
            plan = run(f"{folder}/usr/bin/lockstepd", "--dry-run", "--assume-ranks", "2", "--config", f"{folder}/etc/lockstep/lockstep.conf")
        self.assertIn("tiny-moe", plan)

    @unittest.skipUnless(HAS_PLUGINS, "no CUDA toolkit: no plugins")
    def test_of_the_plugins_holds_all_of_them_and_nothing_else(self):
        built = {path.name for path in (BUILD / "plugins").glob("*.so")}
        self.assertIn("liblockstep_cuda.so", built)
        self.assertEqual({pathlib.Path(path).name for path in self.listing("lockstep-cuda")}, built)
        self.assertFalse(built & {pathlib.Path(path).name for path in self.listing("lockstep")})
        self.assertEqual(self.field("lockstep-cuda", "Depends"), f"lockstep (= {self.field('lockstep', 'Version')})")

    @unittest.skipUnless(HAS_PLUGINS, "no CUDA toolkit: no plugins")
    def test_of_the_plugins_needs_no_library_that_the_daemon_does_not_depend_on(self):
        with tempfile.TemporaryDirectory() as folder:
            for package in ("lockstep", "lockstep-cuda"):
                run("dpkg-deb", "-x", str(self.packages[package]), folder)
            plugins = [path for path in pathlib.Path(folder).rglob("liblockstep_*.so")]
            of_daemon = self.needed(f"{folder}/usr/bin/lockstepd")
            for plugin in plugins:
                self.assertEqual(self.needed(plugin) - of_daemon - OF_NVIDIA, set(), plugin)

    def needed(self, program):
        return set(re.findall(r"NEEDED +(\S+)", run("objdump", "-p", str(program))))

    @unittest.skipUnless(HAS_PLUGINS, "no CUDA toolkit: no plugins")
    def test_of_the_plugins_lies_where_the_daemon_looks(self):
        with tempfile.TemporaryDirectory() as folder:
            run("dpkg-deb", "-x", str(self.packages["lockstep"]), folder)
            alone = self.opened(folder)
            run("dpkg-deb", "-x", str(self.packages["lockstep-cuda"]), folder)
            plugin = next(path for path in self.listing("lockstep-cuda") if path.endswith("liblockstep_cuda.so"))
            together = self.opened(folder)
        self.assertNotIn(f"{folder}{plugin}", alone)
        self.assertIn(f"{folder}{plugin}", together)

    def opened(self, folder):
        """The files that lockstepd found when it was asked for the plugin, by the loader's own word."""
        command = [f"{folder}/usr/bin/lockstepd", "--check", "--device", "cuda"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False, env={**os.environ, "LD_DEBUG": "files"})
        return {os.path.normpath(line.split("file=")[1].split()[0]) for line in told.stderr.splitlines() if "file=" in line}


if __name__ == "__main__":
    unittest.main()
