"""How long a function and a file may be, and how many files a folder holds."""

import ast
import collections
import re

from repository import CODE_SUFFIXES, SOURCE_SUFFIXES, Finding

FUNCTION_LINES = 70
SOURCE_LINES = 600
HEADER_LINES = 200
FOLDER_FILES = 12

SCOPE_HEAD = re.compile(r"^(inline\s+)?(namespace|class|struct|union|enum|extern)\b")


def check(repository):
    for file in repository.files:
        is_script = file.suffix in {".py", ".sh"} or file.lines[0].startswith("#!")
        if not file.is_code and not is_script:
            continue
        limit = HEADER_LINES if file.is_header else SOURCE_LINES
        count = file.text.count("\n")
        if count > limit:
            yield Finding(file.path, count, "size-file", f"{count} lines, at most {limit}: split it")
        for name, line, length in functions(file):
            if length > FUNCTION_LINES:
                yield Finding(file.path, line, "size-function", f"{name} has {length} lines, at most {FUNCTION_LINES}: split it")
    yield from check_folders(repository)


def check_folders(repository):
    counts = collections.Counter(file.folder for file in repository.files if file.suffix in CODE_SUFFIXES | {".py"})
    for folder, count in sorted(counts.items()):
        if count > FOLDER_FILES:
            yield Finding(folder, 1, "size-folder", f"{count} source files, at most {FOLDER_FILES}: make a subfolder")


def functions(file):
    """(name, first line, number of lines) of each outermost function, its signature included."""
    if file.is_code:
        return cpp_functions(file)
    if file.suffix == ".py":
        return python_functions(file)
    return shell_functions(file)


def python_functions(file):
    try:
        tree = ast.parse(file.text)
    except SyntaxError:
        return []
    defined = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [(node.name, node.lineno, node.end_lineno - node.lineno + 1) for node in defined]


def shell_functions(file):
    found = []
    start = None
    for number, line in enumerate(file.lines, start=1):
        match = re.match(r"(\w+)\(\) \{$", line)
        if match:
            start = (match.group(1), number)
        elif line == "}" and start:
            found.append((start[0], start[1], number - start[1] + 1))
            start = None
    return found


def without_preprocessor(code):
    """Blanks directives with their continuation lines: a macro's braces need not match."""
    return re.sub(r"^[ \t]*#(?:[^\n\\]|\\\n|\\.)*", lambda match: re.sub(r"[^\n]", " ", match.group(0)), code, flags=re.MULTILINE)


def matching_brace(code, opening):
    depth = 0
    for match in re.compile(r"[{}]").finditer(code, opening):
        depth += 1 if match.group(0) == "{" else -1
        if depth == 0:
            return match.start()
    return len(code) - 1


def cpp_functions(file):
    """Walks namespaces and classes and jumps over every other block. Not a parser: it knows the shapes that clang-format leaves."""
    code = without_preprocessor(file.code)
    found = []
    statement = 0  # where the current declaration begins
    position = 0
    for_head = re.compile(r"[;{}]|(?<!:):(?!:)")
    while match := for_head.search(code, position):
        position = match.end()
        if match.group(0) == ":":
            # An access specifier ends nothing that matters; a constructor's ':' belongs to its head.
            if re.fullmatch(r"\s*(public|private|protected)\s*", code[statement : match.start()]):
                statement = position
            continue
        if match.group(0) != "{":
            statement = position
            continue
        head = code[statement : match.start()].strip()
        bare_head = re.sub(r"^(template\s*<.*?>\s*(requires\b.*?)?)+(?=\w)", "", head, flags=re.DOTALL)
        if SCOPE_HEAD.match(bare_head) or head.startswith("template") and re.search(r"\b(class|struct|union)\s+(\[\[.*?\]\]\s*)?\w+[^()]*$", head):
            statement = position  # walk inside
            continue
        end = matching_brace(code, match.start())
        # `Type::Type() : member_{1} {`: the first braces are an initialiser's, the body comes after it.
        while "(" in head and re.match(r"\s*(,[^;{}]*)?\{", code[end + 1 :]):
            end = matching_brace(code, code.index("{", end + 1))
        if "(" in head:
            first = file.line_of(statement + len(code[statement:]) - len(code[statement:].lstrip()))
            name = re.search(r"([\w:~]+)\s*\(", head)
            found.append((name.group(1) if name else "a lambda", first, file.line_of(end) - first + 1))
        position = end + 1
        statement = position
    return found
