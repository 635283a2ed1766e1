"""The files of a clone, and how C++ text is cut up: what the rules work on."""

import dataclasses
import functools
import os
import pathlib
import re
import subprocess

SOURCE_SUFFIXES = {".cpp", ".cu"}
HEADER_SUFFIXES = {".hpp", ".cuh", ".h"}
CODE_SUFFIXES = SOURCE_SUFFIXES | HEADER_SUFFIXES


@dataclasses.dataclass(frozen=True)
class Finding:
    """One broken rule, in the form that editors jump to."""

    path: str
    line: int
    rule: str
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


class SourceFile:
    """One text file. `path` is relative to the repository, with forward slashes."""

    def __init__(self, root, path):
        self.path = path
        self.text = (pathlib.Path(root) / path).read_text(encoding="utf-8", errors="replace")
        self.lines = self.text.split("\n")
        self.suffix = pathlib.PurePosixPath(path).suffix

    @property
    def folder(self):
        return str(pathlib.PurePosixPath(self.path).parent)

    @property
    def is_code(self):
        return self.suffix in CODE_SUFFIXES

    @property
    def is_header(self):
        return self.suffix in HEADER_SUFFIXES

    @property
    def is_public_header(self):
        return self.is_header and self.path.startswith("include/lockstep/")

    @property
    def is_test_code(self):
        return self.path.startswith(("tests/", "bench/"))

    @functools.cached_property
    def code(self):
        """The text with comments and the insides of literals blanked: same length, same lines."""
        return blank_comments_and_literals(self.text)

    @functools.cached_property
    def includes(self):
        """(line number, what stands between the quotes or brackets, True when quoted)."""
        found = []
        for number, line in enumerate(self.lines, start=1):
            match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
            if match:
                found.append((number, match.group(2), match.group(1) == '"'))
        return found

    def line_of(self, offset):
        return self.text.count("\n", 0, offset) + 1


class Repository:
    """All files that git knows or would add; without git, all that lie outside build folders."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.paths = sorted(path for path in list_paths(self.root) if (self.root / path).is_file())
        self.folders = sorted({str(parent) for path in self.paths for parent in pathlib.PurePosixPath(path).parents if str(parent) != "."})

    @functools.cached_property
    def files(self):
        text_suffixes = CODE_SUFFIXES | {".py", ".sh", ".md", ".txt", ".cmake", ".json", ".yml", ".yaml", ".toml", ".service", ".in", ""}
        result = []
        for path in self.paths:
            # Model files and recorded reference outputs are data, not text that someone wrote.
            if path.startswith(("model/embedded/", "tests/data/")) or pathlib.PurePosixPath(path).suffix not in text_suffixes:
                continue
            result.append(SourceFile(self.root, path))
        return result

    @property
    def code_files(self):
        return [file for file in self.files if file.is_code]

    def exists(self, path):
        return (self.root / path).exists()


def list_paths(root):
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "-c", f"safe.directory={root}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        return [path for path in subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0") if path]
    paths = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in {"build", "__pycache__"} and not (name.startswith(".") and name != ".ci")]
        paths += [str((pathlib.Path(folder) / name).relative_to(root)) for name in names]
    return paths


LITERAL_OR_COMMENT = re.compile(
    r"""(?P<line>//(?:[^\n\\]|\\.|\\\n)*)            # up to the end of the line
      | (?P<block>/\*.*?\*/)
      | R"(?P<mark>[^\s()\\]{0,16})\(.*?\)(?P=mark)"   # raw string
      | "(?:[^"\\\n]|\\.)*"
      | (?<![0-9A-Fa-f])'(?:[^'\\\n]|\\.)+'            # not the quote inside 1'000""",
    re.VERBOSE | re.DOTALL,
)


def blank_comments_and_literals(text):
    def blank(match):
        kept = re.sub(r"[^\n]", " ", match.group(0))
        if match.group("line") or match.group("block"):
            return kept
        return '"' + kept[1:-1] + '"'  # a literal stays a token

    return LITERAL_OR_COMMENT.sub(blank, text)
