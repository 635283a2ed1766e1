#!/usr/bin/env python3
"""Goal    lockstep is usable as an installed library, and its headers keep to themselves.
Method  The build is installed into an empty prefix, which then moves; a project outside of the tree is built against it, by CMake and by pkg-config, and run.
        The compiler says what each public header pulls in; that it compiles alone is checked by tests/tidy. The examples of docs/library.md are compiled, the
        last paragraph of each as the body of a function."""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

BUILD = os.environ["LOCKSTEP_BUILD"]
INCLUDE = pathlib.Path(os.environ["LOCKSTEP_INCLUDE"])
CXX = os.environ["LOCKSTEP_CXX"]
USER = pathlib.Path(__file__).parent / "user"
LIMIT_SECONDS = 300
# What no user of a public header should have to install, as it shows in paths of headers.
DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "library.md"
# What the examples of docs/library.md are in the middle of, by the header that their section is about.
SCENES = {
    "forward_context.hpp": "void example(const lockstep::AttentionMetadataByLayer& by_layer, void (*model)(int, int), int input_ids, int positions)",
    "micro_batch.hpp": "using Tensor = std::vector<float>;\nvoid example(Tensor (*model)(std::span<const int>), std::span<const int> rows)",
    "microbatcher.hpp": "boost::asio::awaitable<void> example(boost::asio::io_context& io)",
}
FORBIDDEN = ("mpi.h", "cuda_runtime", "nccl.h", "boost/beast", "boost/json", "dnnl", "prometheus/", "spdlog/", "CLI/")


def run(*command, **options):
    result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False, **options)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))} returned {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.stdout


def pulled_in_by(header):
    """Every header that `header` includes, directly or not."""
    rule = run(CXX, "-std=c++20", "-M", "-MT", "x", f"-I{INCLUDE}", header)
    return rule.replace("\\\n", " ").split()[1:]


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        first = pathlib.Path(cls.folder.name, "first")
        run("cmake", "--install", BUILD, "--prefix", first, "--component", "library")
        cls.prefix = pathlib.Path(cls.folder.name, "moved")
        shutil.move(first, cls.prefix)

    def test_is_found_by_cmake_and_its_program_runs(self):
        build = pathlib.Path(self.folder.name, "user-cmake")
        run("cmake", "-S", USER, "-B", build, f"-DCMAKE_PREFIX_PATH={self.prefix}", f"-DCMAKE_CXX_COMPILER={CXX}")
        run("cmake", "--build", build)
        run(build / "user")

    def test_is_found_by_pkg_config_and_its_program_runs(self):
        path = next(self.prefix.rglob("lockstep.pc")).parent
        flags = run("pkg-config", "--cflags", "--libs", "lockstep", env={**os.environ, "PKG_CONFIG_PATH": str(path)}).split()
        program = pathlib.Path(self.folder.name, "user-pkg-config")
        run(CXX, "-std=c++20", USER / "main.cpp", "-o", program, *flags)
        run(program)

    def test_refuses_a_version_that_it_is_not(self):
        source = pathlib.Path(self.folder.name, "other-version")
        shutil.copytree(USER, source)
        listing = source / "CMakeLists.txt"
        listing.write_text(listing.read_text().replace("lockstep 0.1", "lockstep 9.0"))
        result = subprocess.run(
            ["cmake", "-S", source, "-B", source / "build", f"-DCMAKE_PREFIX_PATH={self.prefix}"], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        )
        self.assertNotEqual(result.returncode, 0)
        self.assertIn('compatible with requested version "9.0"', " ".join(result.stderr.split()))

    def test_has_every_header_that_an_installed_header_includes(self):
        for header in (self.prefix / "include").rglob("*.hpp"):
            for line in header.read_text().splitlines():
                if line.startswith('#include "lockstep/'):
                    self.assertTrue((self.prefix / "include" / line.split('"')[1]).is_file(), f"{header}: {line}")


class PublicHeaders(unittest.TestCase):
    def test_pull_in_nothing_that_users_need_not_have(self):
        headers = sorted(INCLUDE.rglob("*.hpp"))
        self.assertGreater(len(headers), 30)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for header, pulled_in in zip(headers, pool.map(pulled_in_by, headers)):
                for path in pulled_in:
                    for name in FORBIDDEN:
                        self.assertNotIn(name, path, f"{header} pulls in {path}")

    def test_make_each_example_of_the_document_compile(self):
        sections = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)
        examples = [(section.split("`lockstep/")[1].split("`")[0], block) for section in sections for block in re.findall(r"```cpp\n(.*?)```", section, re.DOTALL)]
        self.assertEqual({header for header, _ in examples}, set(SCENES))
        flags = ("-std=c++20", "-fsyntax-only", "-x", "c++", f"-I{INCLUDE}", "-")
        for header, block in examples:
            declarations, statements = block.rsplit("\n\n", 1) if "\n\n" in block else ("", block)
            includes = "".join(f"#include {each}\n" for each in ("<span>", "<string>", "<vector>", f'"lockstep/{header}"'))
            run(CXX, *flags, input=f"{includes}{declarations}\n{SCENES[header]} {{\n{statements}\n}}\n")


if __name__ == "__main__":
    unittest.main()
