#!/usr/bin/env python3
"""Goal    Each rule of the tidy check fires on what it forbids, and stays silent on what it allows: a checker that finds nothing proves nothing.
Method  Small trees in a temporary folder, each with one thing wrong, compared with the findings that it must give."""

import pathlib
import tempfile
import textwrap
import unittest

import tidy
from repository import SourceFile, blank_comments_and_literals
from rules_sizes import functions

FIELDS = "Purpose     P\nStart here  S\nUses        U\nContents    C\nInvariants  I\nTests       T\n"


class TreeTest(unittest.TestCase):
    """check() gives (rule, path, line) of every finding in a tree that is otherwise clean."""

    def check(self, files, readmes=True):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            if readmes:
                files = {**self.readmes_for(files), **files}
            for path, text in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(textwrap.dedent(text))
            return [(finding.rule, finding.path, finding.line) for finding in tidy.findings(root)]

    @staticmethod
    def readmes_for(files):
        readmes = {}
        folders = {str(parent) for path in files for parent in pathlib.PurePosixPath(path).parents}
        for folder in folders - {"."}:
            parts = folder.split("/")
            if len(parts) == 1 or (len(parts) == 2 and parts[0] == "tests"):
                below = sorted(other.split("/")[-1] + "/" for other in folders if str(pathlib.PurePosixPath(other).parent) == folder)
                readmes[f"{folder}/README.md"] = f"# {folder}: test\n{FIELDS}{' '.join(below)}\n"
        return readmes

    def assert_clean(self, files, **options):
        self.assertEqual(self.check(files, **options), [])

    def assert_rule(self, files, rule, path, line=None, **options):
        found = self.check(files, **options)
        self.assertEqual([(name, where) for name, where, _ in found], [(rule, path)])
        if line is not None:
            self.assertEqual(found[0][2], line)


class IncludeRules(TreeTest):
    headers = {"include/lockstep/comm/group.hpp": "#pragma once\n", "include/lockstep/core/result.hpp": "#pragma once\n", "include/lockstep/scheduler/engine.hpp": "\n"}

    def test_allow_what_lies_below_and_in_the_own_folder(self):
        self.assert_clean({**self.headers, "comm/mpi/a.cpp": '#include "lockstep/comm/group.hpp"\n#include "comm/mpi/a.hpp"\n#include "lockstep/core/result.hpp"\n', "comm/mpi/a.hpp": ""})

    def test_refuse_what_lies_above(self):
        self.assert_rule({**self.headers, "comm/a.cpp": '\n#include "lockstep/scheduler/engine.hpp"\n'}, "include-direction", "comm/a.cpp", 2)

    def test_refuse_what_lies_above_in_angle_brackets_and_in_public_headers(self):
        tree = {**self.headers, "include/lockstep/core/b.hpp": "#include <lockstep/comm/group.hpp>\n"}
        self.assert_rule(tree, "include-direction", "include/lockstep/core/b.hpp", 1)

    def test_refuse_private_headers_of_another_folder(self):
        self.assert_rule({"device/host/s.hpp": "", "comm/a.cpp": '#include "device/host/s.hpp"\n'}, "include-private", "comm/a.cpp")

    def test_refuse_private_headers_in_public_ones_even_of_the_same_folder(self):
        self.assert_rule({"comm/s.hpp": "", "include/lockstep/comm/c.hpp": '#include "comm/s.hpp"\n'}, "include-private", "include/lockstep/comm/c.hpp")

    def test_refuse_test_code_in_product_code(self):
        self.assert_rule({"tests/support/f.hpp": "", "comm/a.cpp": '#include "tests/support/f.hpp"\n'}, "include-private", "comm/a.cpp")

    def test_allow_private_headers_in_tests(self):
        self.assert_clean({"device/host/s.hpp": "", "tests/unit/a.cpp": '#include "device/host/s.hpp"\n'})

    def test_refuse_paths_with_dots_and_headers_that_are_gone(self):
        self.assert_rule({"comm/a.cpp": '#include "../device/s.hpp"\n'}, "include-direction", "comm/a.cpp")
        self.assert_rule({"comm/a.cpp": '#include "lockstep/comm/gone.hpp"\n'}, "include-direction", "comm/a.cpp")

    def test_refuse_a_flat_header_whose_layer_nobody_declared(self):
        self.assert_rule({"include/lockstep/new_seed.hpp": ""}, "include-direction", "include/lockstep/new_seed.hpp")
        self.assert_clean({"include/lockstep/forward_context.hpp": ""})

    def test_keep_vendor_headers_at_home(self):
        for header, home, elsewhere in [
            ("mpi.h", "comm/mpi/a.cpp", "comm/a.cpp"),
            ("dnnl.hpp", "device/host/a.cpp", "model/a.cpp"),
            ("oneapi/dnnl/dnnl.hpp", "device/host/a.cpp", "model/a.cpp"),
            ("boost/beast/http.hpp", "daemon/http/a.cpp", "comm/peer/a.cpp"),
            ("boost/beast.hpp", "daemon/http/a.cpp", "scheduler/a.cpp"),
            ("prometheus/registry.h", "daemon/a.cpp", "scheduler/a.cpp"),
            ("openssl/hmac.h", "comm/peer/a.cpp", "comm/a.cpp"),
            ("cuda_runtime.h", "comm/nccl/a.cpp", "device/host/a.cpp"),
        ]:
            with self.subTest(header=header):
                self.assert_clean({home: f"#include <{header}>\n"})
                self.assert_rule({elsewhere: f"#include <{header}>\n"}, "include-vendor", elsewhere)
                self.assert_clean({"tests/mpi/a.cpp": f"#include <{header}>\n"})

    def test_keep_vendor_headers_out_of_public_headers(self):
        for header in ["mpi.h", "cuda_runtime.h", "boost/beast/core.hpp", "boost/json.hpp", "prometheus/registry.h", "dnnl.hpp"]:
            with self.subTest(header=header):
                self.assert_rule({"include/lockstep/comm/c.hpp": f"#include <{header}>\n"}, "include-public", "include/lockstep/comm/c.hpp")


class SizeRules(TreeTest):
    @staticmethod
    def function(lines, head="int f(int a)"):
        return head + " {\n" + "  ++a;\n" * (lines - 2) + "}\n"

    def test_count_a_functions_lines_with_its_signature(self):
        self.assert_clean({"comm/a.cpp": self.function(70)})
        self.assert_rule({"comm/a.cpp": "\n" + self.function(71)}, "size-function", "comm/a.cpp", 2)

    def test_find_long_functions_wherever_they_stand(self):
        long = self.function(71)
        heads = {
            "a namespace": ("namespace a::b {\nnamespace {\n", long, "}\n}\n"),
            "a class": ("class X final : public Y<int> {\n public:\n", long, "};\n"),
            "an extern block": ('extern "C" {\n', long, "}\n"),
            "a template": ("", "template <typename T>\n" + self.function(70), ""),
            "a constructor": ("", self.function(71, "X::X(int b) : a{b}, c(1) "), ""),
            "a trailing return": ("", self.function(71, "auto f() const noexcept -> std::vector<int>"), ""),
            "after a table": ('constexpr std::array kTable{\n    Row{.name = "a}", .make = f},\n};\n', long, ""),
            "after an enum": ("enum class E : int { kA, kB };\n", long, ""),
            "a test": ("", self.function(71, "TEST(Subject, DoesSomething)"), ""),
            "a lambda": ("", self.function(71, "const auto f = [](int a)"), ""),
            "after a macro": ("#define M(a) \\\n  do { \\\n    if (a) {\n\n", long, ""),
        }
        for where, (before, body, after) in heads.items():
            with self.subTest(where=where):
                self.assert_rule({"comm/a.cpp": before + body + after}, "size-function", "comm/a.cpp")

    def test_are_not_fooled_by_braces_in_text(self):
        text = 'int f() {\n  g("{", \'{\', R"x({{)x");  // {{{\n  /* { */ return 1\'000;\n}\n'
        self.assert_clean({"comm/a.cpp": text + self.function(70) + "struct S {\n" + "  int a;\n" * 100 + "};\n"})

    def test_measure_python_and_shell_functions_too(self):
        self.assert_rule({"bench/run.py": "def f():\n" + "    pass\n" * 70}, "size-function", "bench/run.py", 1)
        self.assert_rule({"scripts/x.sh": "f() {\n" + "  :\n" * 70 + "}\n"}, "size-function", "scripts/x.sh", 1)

    def test_limit_files(self):
        self.assert_clean({"comm/a.cpp": "\n" * 600, "comm/a.hpp": "\n" * 200})
        self.assert_rule({"comm/a.cpp": "\n" * 601}, "size-file", "comm/a.cpp")
        self.assert_rule({"comm/a.hpp": "\n" * 201}, "size-file", "comm/a.hpp")

    def test_limit_folders(self):
        self.assert_clean({f"comm/{i}.cpp": "" for i in range(12)})
        self.assert_rule({f"comm/{i}.cpp": "" for i in range(13)}, "size-folder", "comm")

    def test_name_the_function(self):
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "a.cpp").write_text("Status Engine::load(int a) {\n}\n\nint g() { return 1; }\n")
            self.assertEqual(functions(SourceFile(folder, "a.cpp")), [("Engine::load", 1, 2), ("g", 4, 1)])


class ReadmeRules(TreeTest):
    def test_want_one_in_every_folder_and_kind_of_test(self):
        self.assert_rule({"comm/a.cpp": ""}, "readme-missing", "comm/README.md", readmes=False)
        tree = {"tests/README.md": "# tests: x\nPurpose\nunit/\n", "tests/unit/a.cpp": ""}
        self.assert_rule(tree, "readme-missing", "tests/unit/README.md", readmes=False)

    def test_limit_their_length(self):
        self.assert_clean({"bench/README.md": "# bench: x\nPurpose\n" + "\n" * 23})
        self.assert_rule({"bench/README.md": "# bench: x\nPurpose\n" + "\n" * 24}, "readme-size", "bench/README.md")

    def test_want_the_title_and_all_fields(self):
        self.assert_rule({"comm/README.md": "# talking\n" + FIELDS}, "readme-shape", "comm/README.md", 1)
        self.assert_rule({"comm/README.md": "# comm: talking\n" + FIELDS.replace("Invariants", "Rules")}, "readme-shape", "comm/README.md", 1)

    def test_want_every_subfolder_named(self):
        self.assert_rule({"comm/README.md": "# comm: x\n" + FIELDS, "comm/mpi/a.cpp": ""}, "readme-subfolder", "comm/README.md")

    def test_refuse_names_of_files_and_folders_that_are_gone(self):
        start = "# comm: x\n" + FIELDS
        self.assert_rule({"comm/README.md": start + "registry.cpp\n"}, "readme-gone", "comm/README.md", 8)
        self.assert_rule({"comm/README.md": start + "see tests/unit/comm/x_test.cpp\n"}, "readme-gone", "comm/README.md", 8)
        self.assert_rule({"comm/README.md": start + "mpi/  the ranks\n"}, "readme-gone", "comm/README.md", 8)
        self.assert_rule({"comm/README.md": start + "../include/x.hpp\n"}, "readme-gone", "comm/README.md", 8)

    def test_allow_names_from_the_folder_or_the_root_and_patterns(self):
        readme = "# comm: x\n" + FIELDS + "registry.cpp, mpi/deep.cpp, deep.cpp, tests/unit/u_test.cpp, ../tests/unit/u_test.cpp, mpi/, tests/unit/, *.cpp; config.json\n"
        self.assert_clean({"comm/README.md": readme, "comm/registry.cpp": "", "comm/mpi/deep.cpp": "", "tests/unit/u_test.cpp": ""})

    def test_follow_links_of_all_pages(self):
        self.assert_clean({"README.md": "[a](docs/x.md#part) [b](https://example.org/y.md)\n", "docs/x.md": "[up](../README.md)\n"})
        self.assert_rule({"docs/x.md": "\n[gone](y.md)\n"}, "link-gone", "docs/x.md", 2)


class TextRules(TreeTest):
    def test_refuse_calls_with_a_better_replacement(self):
        for call in ["std::this_thread::sleep_for(x);", "usleep(3);", "std::regex r(x);", "thread.detach();", "int x = rand();", "std::async(f);",
                     "sprintf(a, b);", "system(x);", "assert(x);", "using namespace std;"]:  # fmt: skip
            with self.subTest(call=call):
                self.assert_rule({"comm/a.cpp": f"\n{call}\n"}, "banned-call", "comm/a.cpp", 2)

    def test_allow_the_same_words_in_comments_strings_and_other_names(self):
        self.assert_clean({"comm/a.cpp": '// sleep_for(1)\nf("rand()");\nx.rand(); operand(); static_assert(true); boost::system::error_code e; exchange->detach();\n'})

    def test_allow_a_call_with_a_reason(self):
        self.assert_clean({"comm/a.cpp": "t.detach();  // tidy-ok: it may hang in MPI_Init for ever\n"})
        self.assert_rule({"comm/a.cpp": "t.detach();  // tidy-ok:\n"}, "banned-call", "comm/a.cpp")

    def test_allow_names_of_literals_and_futures_in_unit_tests(self):
        self.assert_clean({"comm/a.cpp": "using namespace std::chrono_literals;\n", "tests/unit/a.cpp": "auto later = std::async(f);\n"})

    def test_allow_sleeps_in_tests_of_processes_but_not_in_unit_tests(self):
        self.assert_clean({"tests/fault/a.cpp": "usleep(3);\n"})
        self.assert_rule({"tests/unit/a.cpp": "usleep(3);\n"}, "banned-call", "tests/unit/a.cpp")

    def test_want_an_issue_for_every_promise(self):
        self.assert_clean({"comm/a.cpp": "// TODO(#12): later\n"})
        for promise in ["// TODO: later", "// TODO(me): later", "// FIXME", "# XXX"]:
            with self.subTest(promise=promise):
                self.assert_rule({"comm/a.cpp": promise + "\n"}, "todo", "comm/a.cpp")

    def test_want_a_reason_where_everything_is_caught(self):
        self.assert_clean({"comm/a.cpp": "catch (...) {  // a destructor only logs\n}\n"})
        self.assert_clean({"comm/a.cpp": "catch (...) {\n  // a destructor only logs\n}\n"})
        self.assert_rule({"comm/a.cpp": "\ncatch (...) {\n}\n"}, "catch-all", "comm/a.cpp", 2)

    def test_refuse_exceptions_of_ours_outside_the_seeds_interface(self):
        self.assert_clean({"core/forward_context.cpp": "throw 1;\n", "tests/unit/a.cpp": "throw 1;\n", "comm/a.cpp": "// never throw\n"})
        self.assert_rule({"comm/a.cpp": "  throw std::runtime_error(x);\n"}, "throw", "comm/a.cpp", 1)

    def test_refuse_paths_of_one_machine(self):
        self.assert_clean({"docs/a.md": "build/home/x https://example.org/home/x ./home/y\n"})
        self.assert_rule({"docs/a.md": "run /home/someone/x\n"}, "machine-path", "docs/a.md")


class Blanking(unittest.TestCase):
    def test_keeps_length_lines_and_code(self):
        for text in ["a /* b\nc */ d", 'f("x\\"y", 1)', "// a\\\nb\nc", 'R"m(a\n)" )m" + 1', "1'000 + '\\'' + 'a'", "0xFF'FF"]:
            blanked = blank_comments_and_literals(text)
            self.assertEqual(len(blanked), len(text))
            self.assertEqual(blanked.count("\n"), text.count("\n"))
        self.assertEqual(blank_comments_and_literals("a /* b */ c"), "a         c")
        self.assertEqual(blank_comments_and_literals('f("{") + 1'), 'f(" ") + 1')
        self.assertEqual(blank_comments_and_literals("1'000'000"), "1'000'000")


if __name__ == "__main__":
    unittest.main()
