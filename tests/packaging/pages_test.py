#!/usr/bin/env python3
"""Goal    Manual pages and completions name every option that --help names, and are well formed.
Method  What the build made from --help is read by man and by the shells that are here; every option is looked for in each."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

PAGES = pathlib.Path(os.environ["LOCKSTEP_BUILD"]) / "packaging"
SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "packaging/pages.py"
PROGRAMS = {"lockstepd": 8, "lockstep-run": 1}


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def options_of(program):
    """Flags that begin a line of --help."""
    return re.findall(r"^  (?:-h, )?(--?[a-z][a-z-]*)", (PAGES / f"{program}.help").read_text(), re.MULTILINE)


class Pages(unittest.TestCase):
    def test_the_manual_names_every_option_and_man_has_no_complaint(self):
        for program, section in PROGRAMS.items():
            page = PAGES / f"{program}.{section}"
            result = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page), env={**os.environ, "LC_ALL": "C.UTF-8"})
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            text = page.read_text().replace("\\-", "-")
            self.assertGreater(len(options_of(program)), 5)
            for option in options_of(program):
                self.assertIn(f"\\fB{option}\\fR", text)

    def test_bash_completes_every_option_and_the_values_of_choices(self):
        for program in PROGRAMS:
            for option in options_of(program):
                self.assertIn(option, self.completed(program, program, option[:2] if option.startswith("--") else option))
        self.assertEqual(set(self.completed("lockstepd", "lockstepd", "--load-format", "")), {"auto", "safetensors", "dummy"})
        self.assertEqual(set(self.completed("lockstepd", "lockstepd", "--device", "")), {"auto", "cpu", "cuda"})
        self.assertEqual(self.completed("lockstepd", "lockstepd", "--combine", "=", "per-r"), ["per-rank"])  # as bash takes --combine=per-r apart
        self.assertEqual(set(self.completed("lockstepd", "lockstepd", "--agreement", "=")), {"sync", "pipelined"})
        self.assertEqual(self.completed("lockstepd", "lockstepd", "--port", ""), [])

    def test_behind_two_dashes_the_launcher_leaves_completion_to_the_program(self):
        launcher = ("lockstep-run", "lockstep-run", "-n", "2", "--")
        self.assertIn("uname", self.completed(*launcher, "unam"))
        self.assertEqual(self.completed(*launcher, "lockstepd", "--h"), [], "no option of its own")
        # bash-completion's own, which takes the place of the words by those from there on.
        self.assertEqual(self.completed(*launcher, "lockstepd", "--h", before='_command_offset() { COMPREPLY=("from word $1"); };'), ["from", "word", "4"])
        self.assertIn("'*::program:_normal'", (PAGES / "_lockstep-run").read_text())
        self.assertIn("complete -C", (PAGES / "lockstep-run.fish").read_text())
        self.assertNotIn("_normal", (PAGES / "_lockstepd").read_text())

    def test_no_section_of_the_manual_is_empty(self):
        for program, section in PROGRAMS.items():
            self.assertNotRegex((PAGES / f"{program}.{section}").read_text(), r"\.SH [A-Z ]+\n(\.(nf|fi)\n)*\.SH")

    def completed(self, program, *words, before=""):
        """What bash offers for the last of `words`."""
        script = before + f'. "{PAGES}/{program}.bash"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _{program.replace("-", "_")}; printf "%s\\n" "${{COMPREPLY[@]}}"'
        result = run("bash", "-c", script, "bash", *words)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout.split()

    def test_zsh_and_fish_have_a_line_for_every_option(self):
        for program in PROGRAMS:
            zsh, fish = (PAGES / f"_{program}").read_text(), (PAGES / f"{program}.fish").read_text()
            for option in options_of(program):
                self.assertIn(f"'{option}[", zsh)
                self.assertRegex(fish, rf"-[ls] {option.lstrip('-')}( |$)")
            for option in self.with_a_value(program):
                self.assertRegex(zsh, rf"'{option}\[.*\]:.*:.*'")
                self.assertRegex(fish, rf"-[ls] {option.lstrip('-')} (-r|-x)")
                self.assertEqual([word for word in self.completed(program, program, option, "--") if word.startswith("--")], [], option)
            self.assertTrue(zsh.startswith(f"#compdef {program}\n"))

    def with_a_value(self, program):
        """Options behind which --help has a name in capitals."""
        found = re.findall(r"^  (?:-\w, )?(--?[a-z][a-z-]*) [A-Z]", (PAGES / f"{program}.help").read_text(), re.MULTILINE)
        self.assertGreater(len(found), 4)
        return found

    def test_making_them_fails_when_the_help_has_another_form(self):
        with tempfile.TemporaryDirectory() as folder:
            help_file = pathlib.Path(folder, "help")
            help_file.write_text("Usage: something else\n")
            result = run(sys.executable, "-B", str(SCRIPT), "--program", "x", "--section", "1", "--help-file", str(help_file), "--output", folder)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("its form has changed", result.stderr)


if __name__ == "__main__":
    unittest.main()
