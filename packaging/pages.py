#!/usr/bin/env python3
"""Writes the manual page and the shell completions of a program from its --help, so that they say what the option table says.

usage: pages.py --program NAME --section N --help-file FILE --output FOLDER
Reads the form that daemon/options/help_text.cpp and scripts/lockstep-run write: options at two spaces, their text further right."""

import argparse
import dataclasses
import pathlib
import re

OPTION = re.compile(r"^  (?:(-\w), )?(--?[a-z][a-z-]*|-n)(?: ([A-Z][A-Z_:]*|\.\.\.))?(?: +(\S.*))?$")
CHOICES = re.compile(r"^(?:an? [\w -]+: )?((?:[\w-]+, )*[\w-]+ or [\w-]+|cpu|cuda)(?:; |$)")


@dataclasses.dataclass
class Option:
    """One option as --help shows it; `placeholder` is "" for a switch."""

    section: str
    short: str
    flag: str
    placeholder: str
    lines: list

    @property
    def summary(self):
        return self.lines[0] if self.lines else ""

    @property
    def choices(self):
        match = CHOICES.match(self.lines[1]) if len(self.lines) > 1 else None
        return re.split(r", | or ", match.group(1)) if match and self.placeholder else []

    @property
    def takes_path(self):
        return self.placeholder in ("PATH", "FILE", "DIR")


def read_help(text):
    """(head lines, options, tail lines). The head ends at the first option's heading, the tail begins after the last option."""
    head, options, tail, section = [], [], [], ""
    for line in text.splitlines():
        match = OPTION.match(line)
        if match:
            tail = []
            options.append(Option(section, match[1] or "", match[2], match[3] or "", [match[4]] if match[4] else []))
        elif options and not tail and line.startswith(" " * 19):
            options[-1].lines.append(line.strip())
        elif not options:
            head.append(line)
            section = line.strip() or section
        else:
            tail.append(line)
            section = line.strip() or section
    if not options:
        raise SystemExit("pages.py: found no option in the help text: its form has changed")
    if head and head[-1] == options[0].section and not head[-1].startswith("Usage"):
        head.pop()
    return head, options, tail


def roff(text):
    """Text as roff shows it: dashes stay dashes, a leading dot or quote is no command."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def manual_page(program, section, head, options, tail):
    summary = "starts the ranks of a group" if head[0].startswith("Usage") else head[0].split(": ", 1)[1]
    lines = [f".TH {program.upper()} {section} \"\" lockstep", ".nh", ".ad l", ".SH NAME", f"{program} \\- {roff(summary)}", ".SH SYNOPSIS", ".nf"]
    lines += [roff(line.removeprefix("Usage:").strip()) for line in head if line.startswith(("Usage:", "       lock"))]
    lines.append(".fi")
    if description := [roff(line) for line in head[1:] if line and not line.startswith(("Usage:", "       lock"))]:
        lines += [".SH DESCRIPTION", ".nf", *description, ".fi"]
    lines.append(".SH OPTIONS")
    heading = ""
    for option in options:
        if option.section != heading and not option.section.startswith("Usage"):
            heading = option.section
            lines.append(f".SS {roff(heading)}")
        name = ", ".join(f"\\fB{roff(flag)}\\fR" for flag in (option.short, option.flag) if flag)
        lines += [".TP", name + (f" \\fI{option.placeholder}\\fR" if option.placeholder else "")]
        for index, text in enumerate(option.lines):
            lines += ([".br"] if index else []) + [roff(text)]
    if any(tail):
        lines += [".SH NOTES", ".nf", *(roff(line) for line in tail if line), ".fi"]
    other = ("lockstep\\-run", 1) if program != "lockstep-run" else ("lockstepd", 8)
    lines += [".SH SEE ALSO", f".BR {other[0]} ({other[1]})"]
    return "\n".join(lines) + "\n"


def flags_of(option):
    return [flag for flag in (option.short, option.flag) if flag]


# What follows -- is another command line, which the shell completes by what it knows of that program.
BASH_PROGRAM = """  local word
  for ((word = 1; word < COMP_CWORD; ++word)); do
    if [[ ${COMP_WORDS[word]} == -- ]]; then
      if declare -F _command_offset >/dev/null; then
        _command_offset $((word + 1))
      elif ((word + 1 == COMP_CWORD)); then
        COMPREPLY=($(compgen -c -- "$current"))
      fi
      return
    fi
  done
"""
FISH_PROGRAM = "complete -c {} -n 'contains -- -- (commandline -opc)' -x -a '(complete -C (string replace -r \"^.*? -- +\" \"\" -- (commandline -cp)))'"


def bash_completion(program, options, starts_another):
    function = "_" + program.replace("-", "_")
    cases = []
    for option in options:
        if option.choices:
            cases.append(f"    {'|'.join(flags_of(option))}) COMPREPLY=($(compgen -W '{' '.join(option.choices)}' -- \"$current\")); return ;;")
        elif option.takes_path:
            cases.append(f"    {'|'.join(flags_of(option))}) COMPREPLY=($(compgen -f -- \"$current\")); return ;;")
        elif option.placeholder:
            cases.append(f"    {'|'.join(flags_of(option))}) return ;;")
    words = " ".join(flag for option in options for flag in flags_of(option))
    body = "\n".join(cases)
    return f"""# bash completion for {program}, made from its --help
{function}() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
  # bash takes --option=value apart.
  if [[ $current == = ]]; then
    current=
  elif [[ $previous == = ]] && ((COMP_CWORD > 1)); then
    previous=${{COMP_WORDS[COMP_CWORD-2]}}
  fi
{BASH_PROGRAM if starts_another else ""}  case $previous in
{body}
  esac
  COMPREPLY=($(compgen -W '{words}' -- "$current"))
}}
complete -o filenames -F {function} {program}
"""


def quoted(text):
    return text.replace("\\", "\\\\").replace("'", "'\\''").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def zsh_completion(program, options, starts_another):
    lines = []
    for option in options:
        action = f"({' '.join(option.choices)})" if option.choices else "_files" if option.takes_path else " "
        value = f":{quoted(option.placeholder.lower())}:{action}" if option.placeholder else ""
        lines += [f"  '{flag}[{quoted(option.summary)}]{value}'" for flag in flags_of(option)]
    if starts_another:
        lines.append("  '*::program:_normal'")
    return f"#compdef {program}\n# made from its --help\n_arguments {'-S ' if starts_another else ''}\\\n" + " \\\n".join(lines) + "\n"


def fish_completion(program, options, starts_another):
    lines = [f"# made from the --help of {program}", f"complete -c {program} -f"]
    for option in options:
        parts = [f"complete -c {program}"]
        if option.short:
            parts.append(f"-s {option.short[1:]}")
        parts.append(f"-l {option.flag[2:]}" if option.flag.startswith("--") else f"-s {option.flag[1:]}")
        if option.choices:
            parts.append(f"-x -a '{' '.join(option.choices)}'")
        elif option.placeholder:
            parts.append("-r" + (" -F" if option.takes_path else ""))
        summary = option.summary.replace("\\", "\\\\").replace("'", "\\'")
        parts.append(f"-d '{summary}'")
        lines.append(" ".join(parts))
    if starts_another:
        lines.append(FISH_PROGRAM.format(program))
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--section", required=True)
    parser.add_argument("--help-file", required=True, type=pathlib.Path)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    head, options, tail = read_help(arguments.help_file.read_text())
    arguments.output.mkdir(parents=True, exist_ok=True)
    starts_another = any("-- PROGRAM" in line for line in head)
    pages = {
        f"{arguments.program}.{arguments.section}": manual_page(arguments.program, arguments.section, head, options, tail),
        f"{arguments.program}.bash": bash_completion(arguments.program, options, starts_another),
        f"_{arguments.program}": zsh_completion(arguments.program, options, starts_another),
        f"{arguments.program}.fish": fish_completion(arguments.program, options, starts_another),
    }
    for name, text in pages.items():
        (arguments.output / name).write_text(text)


if __name__ == "__main__":
    main()
