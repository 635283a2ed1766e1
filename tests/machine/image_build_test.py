#!/usr/bin/env python3
"""Goal    The Containerfile's step `build` makes the packages of an image, and says by name what a BUILD_IMAGE for GPUs lacks.
Method  image.sh on this machine's own root in the place of a BUILD_IMAGE: it has what building needs, and the CUDA toolkit if the tests have one. A layer over
        the root keeps what is written apart, and goes with the test."""

import os
import pathlib
import subprocess
import tempfile
import unittest

from machine import HAS_PLUGINS, REPOSITORY, packages_in, run

NVCC = pathlib.Path(os.environ["LOCKSTEP_NVCC"])
BUILD_SECONDS = 1500  # without compiled objects of before


class Build(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        files = run("git", "-c", "safe.directory=*", "-C", REPOSITORY, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        sources = pathlib.Path(cls.folder.name, "sources.tar")
        existing = "\0".join(name for name in files if (REPOSITORY / name).is_file())
        subprocess.run(["tar", "--create", f"--directory={REPOSITORY}", f"--file={sources}", "--null", "--files-from=-"], input=existing.encode(), check=True)
        cls.layer = pathlib.Path(cls.folder.name, "layer")
        cls.packages = pathlib.Path(cls.folder.name, "packages")
        for folder in (cls.layer, cls.packages):
            folder.mkdir()

    def build(self, device, hidden=()):
        """What the step prints; `hidden` folders are empty in it."""
        hide = "".join(f"mount -t tmpfs none {self.layer}/merged{folder}\n" for folder in hidden)
        script = f"""set -e
            mount -t tmpfs none {self.layer}
            mkdir {self.layer}/above {self.layer}/work {self.layer}/merged
            mount -t overlay none -o lowerdir=/,upperdir={self.layer}/above,workdir={self.layer}/work {self.layer}/merged
            mkdir {self.layer}/merged/source {self.layer}/merged/packages
            tar --extract --no-same-owner --file={self.folder.name}/sources.tar --directory={self.layer}/merged/source
            mount --bind {self.packages} {self.layer}/merged/packages
            mount -t proc none {self.layer}/merged/proc
            mount --rbind /dev {self.layer}/merged/dev
            {hide}exec chroot {self.layer}/merged nice /source/packaging/image.sh build /source /packages {device}"""
        return run("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, limit=BUILD_SECONDS)

    def test_1_is_refused_by_name_without_a_toolkit(self):
        toolkit = [str(NVCC.resolve().parents[1])] if HAS_PLUGINS else []
        with self.assertRaisesRegex(AssertionError, r"BUILD_IMAGE needs NVIDIA's CUDA toolkit 13\.0 or newer"):
            self.build("cuda", hidden=toolkit)
        self.assertEqual(list(self.packages.iterdir()), [])

    def test_2_makes_the_packages_of_an_image_and_nothing_else(self):
        self.build("cuda" if HAS_PLUGINS else "cpu")
        self.assertEqual(set(packages_in(self.packages)), {"lockstep", "lockstep-cuda"} if HAS_PLUGINS else {"lockstep"})
        self.assertEqual([path.name for path in self.packages.iterdir() if path.suffix != ".deb"], [])


if __name__ == "__main__":
    unittest.main()
