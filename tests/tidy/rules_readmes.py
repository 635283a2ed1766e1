"""Each folder has a README that is short and true: nobody reads a map that is wrong once."""

import fnmatch
import pathlib
import posixpath
import re

from repository import Finding

README_LINES = 25

# Folders of C++ code: their READMEs carry all six fields of the style guide.
CODE_FOLDERS = {"core", "device", "comm", "model", "scheduler", "daemon"}
FIELDS = ["Purpose", "Start here", "Uses", "Contents", "Invariants", "Tests"]

# Words that look like files of ours and are files of a user's model, machine or clone.
FOREIGN_FILES = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "model.safetensors.index.json",
    "compile_commands.json", "perf.data",
}  # fmt: skip

FILE_WORD = re.compile(r"(?<![\w/.*<$:-])(?:\.\./)*(?:[\w.*-]+/)*[\w.*-]*[\w*-]\.(?:cpp|hpp|cu|cuh|py|sh|md|txt|json|cmake|yml|yaml|service|html)\b(?![/>])")
FOLDER_WORD = re.compile(r"(?<![\w/.*<$:-])(?:\.\./)*(?:[\w-][\w.-]*/)+(?![\w*<{])")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def check(repository):
    yield from check_presence(repository)
    for file in repository.files:
        if file.suffix != ".md":
            continue
        yield from check_links(repository, file)
        if pathlib.PurePosixPath(file.path).name == "README.md" and file.folder != ".":
            yield from check_folder_readme(repository, file)


def folders_with_readme(repository):
    """Top-level folders and the kinds of tests; what lies deeper is described by these."""
    for folder in repository.folders:
        parts = folder.split("/")
        if parts[0].startswith("."):
            continue
        if len(parts) == 1 or (len(parts) == 2 and parts[0] == "tests") or folder == "docs/decisions":
            yield folder


def check_presence(repository):
    for folder in folders_with_readme(repository):
        if not repository.exists(f"{folder}/README.md"):
            yield Finding(f"{folder}/README.md", 1, "readme-missing", "each folder says what it is for, in the shape of the others' READMEs")


def check_folder_readme(repository, file):
    count = file.text.count("\n")
    if count > README_LINES:
        yield Finding(file.path, count, "readme-size", f"{count} lines, at most {README_LINES}: details belong to the headers")
    if not file.lines[0].startswith((f"# {file.folder}: ", f"# {file.folder.split('/')[-1]}: ")):
        yield Finding(file.path, 1, "readme-shape", f"the first line must be '# {file.folder}: what it is'")
    fields = FIELDS if file.folder in CODE_FOLDERS else FIELDS[:1]
    for field in fields:
        if not any(re.match(rf"\s*{field}\b", line) for line in file.lines):
            yield Finding(file.path, 1, "readme-shape", f"the field '{field}' is missing")
    for folder in repository.folders:
        if str(pathlib.PurePosixPath(folder).parent) == file.folder and f"{pathlib.PurePosixPath(folder).name}/" not in file.text:
            yield Finding(file.path, 1, "readme-subfolder", f"does not mention {pathlib.PurePosixPath(folder).name}/")
    for number, line in enumerate(file.lines, start=1):
        words = re.sub(r"\[[^\]]*\]\([^)]*\)", "", line)  # links are checked as links
        for match in list(FILE_WORD.finditer(words)) + list(FOLDER_WORD.finditer(words)):
            if not is_there(repository, file.folder, match.group(0)):
                yield Finding(file.path, number, "readme-gone", f"{match.group(0)} does not exist")


def is_there(repository, folder, word):
    """A path counts from the README's folder or the root; a bare file name may lie anywhere, for lists of files name the folder once."""
    if word in FOREIGN_FILES or word.startswith("build/"):
        return True
    if word.endswith("/"):
        known = set(repository.folders)
        return any(posixpath.normpath(posixpath.join(base, word)) in known for base in (folder, "", "include/lockstep"))
    candidates = [posixpath.normpath(posixpath.join(folder, word)), word, f"include/{word}"]
    if "/" not in word:
        candidates.append(f"*/{word}")
    return any(fnmatch.fnmatchcase(path, candidate) for path in repository.paths for candidate in candidates)


def check_links(repository, file):
    for number, line in enumerate(file.lines, start=1):
        for match in LINK.finditer(line):
            target = match.group(1)
            if re.match(r"[a-z]+:", target):
                continue
            if not (repository.root / file.folder / target).exists():
                yield Finding(file.path, number, "link-gone", f"{target} does not exist")
