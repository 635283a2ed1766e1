"""The messages of errors that the sources and the launch scripts can give.

Whoever first decides what went wrong gives an error its code and its text in one statement, `Error{ErrorCode::k..., ...}`: those statements are what is collected. Where
a function of the same file takes the text (`invalid("...")`), its calls are."""

import dataclasses
import pathlib
import re

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("core", "device", "comm", "model", "scheduler", "daemon", "include")
SCRIPTS = ("scripts/lockstep-run", "systemd/lockstep-service")

LITERAL = r'"(?:[^"\\\n]|\\.)*"'
CHARACTER = r"'(?:[^'\\\n]|\\.)+'"
COMMENT_OR_TEXT = re.compile(rf"//[^\n]*|{LITERAL}|{CHARACTER}")
SITE = re.compile(r"ErrorCode::k\w+\s*,")
# A function or a lambda with a name, as clang-format writes their first line.
DEFINITION = re.compile(r"^ *(?:\[\[nodiscard\]\] |static |constexpr )*(?:(?:Error|Status|bool|void|Result<.*?>) (?:\w+::)*(\w+)\(|(?:const )?auto (\w+) = \[)", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Message:
    path: str
    text: str  # placeholders are {...}, as fmt has them


def without_comments(text):
    return COMMENT_OR_TEXT.sub(lambda match: " " if match[0].startswith("//") else match[0], text)


def statement_from(text, start):
    """The rest of the statement or list that goes on at `start`: to its `;`, or to the bracket that closes what was open before."""
    depth, position = 0, start
    while position < len(text):
        if whole := COMMENT_OR_TEXT.match(text, position):
            position = whole.end()
            continue
        character = text[position]
        depth += (character in "({[") - (character in ")}]")
        if depth < 0 or character == ";":
            break
        position += 1
    return text[start:position]


def words_of(statement):
    """The texts of a statement that say something, neighbours joined as the compiler does."""
    joined = re.sub(r'(?<!\\)"\s*\n?\s*"', "", statement)
    texts = [literal[1:-1].replace('\\"', '"').replace("\\\\", "\\") for literal in re.findall(LITERAL, joined)]
    return [text for text in texts if says_something(text)]


def says_something(text):
    """Not what only joins others' texts, such as "rank {} at {}: {}"."""
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\{[^{}]*\}", "", text))
    return len(words) >= 2 and sum(map(len, words)) >= 7


def enclosing_function(text, position):
    found = [match[1] or match[2] for match in DEFINITION.finditer(text, 0, position)]
    return found[-1] if found else None


def messages_of_source(path, text):
    text, found, takers = without_comments(text), [], set()
    for site in SITE.finditer(text):
        words = words_of(statement_from(text, site.end()))
        if words:
            found.append(Message(path, max(words, key=len)))
        elif name := enclosing_function(text, site.start()):
            takers.add(name)
    for name in takers:
        for call in re.finditer(rf"\b{name}\(", text):
            words = words_of(statement_from(text, call.end()))
            found += [Message(path, max(words, key=len))] if words else []
    return found


def messages_of_script(path, text):
    """What `die`, `fail` and `stop` of a shell script say; ${...} and $name become placeholders."""
    said = re.findall(r'\b(?:die|fail)\b(?: \d+)? "((?:[^"\\]|\\.)*)"', text) + re.findall(r"printf '[\w-]+: (.*?)\\n' .*>&2", text)
    return [Message(path, re.sub(r"\$\{[^}]*\}|\$\w+|\$\*|%s", "{}", words)) for words in said if len(words.split()) > 2]


def all_messages():
    found = []
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*.?pp")):
            found += messages_of_source(str(path.relative_to(REPOSITORY)), path.read_text(encoding="utf-8"))
    for script in SCRIPTS:
        found += messages_of_script(script, (REPOSITORY / script).read_text(encoding="utf-8"))
    return list(dict.fromkeys(found))
