"""Random templates from the subset's grammar, the same for the same seed."""

import copy
import random

CONTEXT = {
    "messages": [
        {"role": "system", "content": " Be kind.\n"},
        {"role": "user", "content": "Ünï <x> & 'q'\n\nline", "n": 3, "tags": ["b", "A", "c"]},
        {"role": "assistant", "content": None, "calls": [{"name": "f", "args": {"x": 1.5, "y": [True, None, -2]}}]},
    ],
    "s": "Hello, wörld! hello",
    "n": 7,
    "z": 0,
    "f": 2.5,
    "yes": True,
    "nothing": None,
    "l": [3, 1, 2, 1],
    "w": ["b", "a", "", "C"],
    "d": {"k": "v", "a": 1, "B": [1, 2]},
    "e": [],
}
NAMES = [*CONTEXT, "missing", "ns", "x"]
KEYS = ["k", "a", "role", "content", "n", "calls", "missing"]
WORDS = ["a", "ab", "hello", " ", ", ", "", "é", "\\n", "<&>", "l", "user", "%s"]
NO_ARGUMENTS = ["upper", "lower", "trim", "length", "list", "first", "last", "string", "capitalize", "title", "int", "float", "reverse", "sort", "unique",
                "tojson", "items", "dictsort", "abs", "safe", "e", "sum", "min", "max", "indent", "round", "count", "join"]
WITH_ARGUMENTS = ["default({})", "d({}, true)", "join({})", "replace({}, {})", "map('upper')", "map('length')", "map(attribute={})", "selectattr({})",
                  "selectattr('role', 'equalto', {})", "rejectattr({}, 'defined')", "select('string')", "reject('none')", "select('in', {})", "tojson(indent=2)",
                  "tojson(sort_keys=true)", "tojson(ensure_ascii=true)", "sort(reverse=true)", "trim({})", "indent(2, true)", "int({})", "attr({})", "list", "list",
                  "round(1)", "sort(attribute='role')", "unique(true)"]
TESTS = ["defined", "undefined", "none", "string", "mapping", "sequence", "iterable", "number", "boolean", "true", "false", "integer", "float", "odd", "even",
         "callable", "upper", "lower"]
METHODS = ["strip()", "strip({})", "lstrip({})", "rstrip()", "split()", "split({})", "split({}, 1)", "rsplit({}, 1)", "startswith({})", "endswith({})", "upper()",
           "lower()", "title()", "capitalize()", "replace({}, {})", "find({})", "rfind({})", "count({})", "splitlines()", "join({})", "items()", "keys()",
           "values()", "get({})", "get({}, {})", "index({})", "partition({})", "isdigit()", "isalpha()", "isspace()", "removeprefix({})", "append({})"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "~", "~", "+", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def text(self):
        return repr(self.random.choice(WORDS)).replace("\\\\", "\\")

    def atom(self):
        kind = self.random.randrange(10)
        if kind < 5:
            return self.random.choice(NAMES)
        if kind < 7:
            return self.text()
        return self.random.choice(["0", "1", "-1", "2", "3", "1.5", "true", "none", "[]", "{}", "()", "[1, 'a']", "{'k': 1}", "(1, 2)", "1e3", "10"])

    def expression(self, depth):
        if depth <= 0:
            return self.atom()
        sub = lambda: self.expression(depth - 1 - self.random.randrange(2))  # noqa: E731
        fill = lambda form: form.format(*[self.text() if self.random.random() < 0.6 else sub() for _ in range(form.count("{}"))])  # noqa: E731
        kind = self.random.randrange(16)
        if kind < 3:
            return f"({sub()} {self.random.choice(OPERATORS)} {sub()})"
        if kind < 6:
            return f"({sub()}) | {self.random.choice(NO_ARGUMENTS)}"
        if kind < 8:
            return f"({sub()}) | {fill(self.random.choice(WITH_ARGUMENTS))}"
        if kind == 8:
            return f"({sub()} is {self.random.choice(['', 'not '])}{self.random.choice(TESTS)})"
        if kind == 9:
            return f"({sub()}).{fill(self.random.choice(METHODS))}"
        if kind == 10:
            return f"({sub()}).{self.random.choice(KEYS)}"
        if kind == 11:
            return f"({sub()})[{self.random.choice([self.text(), '0', '-1', '1', self.atom()])}]"
        if kind == 12:
            bound = lambda: self.random.choice(["", "", "0", "1", "-1", "-2", "5"])  # noqa: E731
            return f"({sub()})[{bound()}:{bound()}{self.random.choice(['', ':', ':-1', ':2', ':-2'])}]"
        if kind == 13:
            return f"({sub()} if {sub()} else {sub()})"
        if kind == 14:
            return self.random.choice([f"[{sub()}, {sub()}]", f"{{{self.text()}: {sub()}}}", f"({sub()}, {sub()})", f"not {sub()}", f"-({sub()})"])
        return self.random.choice([f"range({sub()})", f"dict(a={sub()})", f"m({sub()})", f"m({sub()}, b={sub()})", f"{sub()} < {sub()} < {sub()}", f"namespace(v={sub()}).v"])

    def tag(self, inside):
        left = self.random.choice(["", "", "-", "+"])
        right = self.random.choice(["", "", "-"])
        return f"{{%{left} {inside} {right}%}}"

    def data(self):
        return self.random.choice(["", " ", "\n", "\n  ", "text", "a\n b ", "{", "# ", "é\t", " {# c #} ", "\n{#- c -#}\n", "{% raw %}{{ r }}{% endraw %}"])

    def block(self, depth, in_loop=False):
        return "".join(self.data() + self.statement(depth, in_loop) + self.data() for _ in range(self.random.randrange(1, 3)))

    def statement(self, depth, in_loop):
        expression = self.expression(self.random.choice([0, 1, 1, 1, 2, 2, 3]))
        kind = self.random.randrange(12) if depth > 0 else 0
        if kind < 4:
            return self.random.choice(["{{ %s }}", "{{- %s }}", "{{ %s -}}", "{{- %s -}}"]) % expression
        if kind < 6:
            otherwise = self.tag("else") + self.block(depth - 1, in_loop) if self.random.random() < 0.5 else ""
            return self.tag(f"if {expression}") + self.block(depth - 1, in_loop) + otherwise + self.tag("endif")
        if kind < 9:
            return self.loop(depth)
        if kind == 9:
            return self.tag(f"set {self.random.choice(['x', 'ns.v', 'n'])} = {expression}")
        if kind == 10:
            return self.tag("set x") + self.block(depth - 1) + self.tag("endset")
        if in_loop:
            return self.tag(f"if {expression}") + self.tag(self.random.choice(["break", "continue"])) + self.tag("endif")
        return self.tag("filter upper") + self.block(depth - 1) + self.tag("endfilter")

    def loop(self, depth):
        head = self.random.choice(["for x in messages", "for x in l", "for x in s", "for x, y in d.items()", "for x in range(4)", f"for x in {self.expression(2)}"])
        condition = self.random.choice(["", "", " if x", " if x is not string", " if loop is undefined"])
        shown = self.random.choice(["index", "index0", "revindex", "first", "last", "length", "previtem", "nextitem", "cycle('a', 'b')", "changed(x)"])
        otherwise = self.tag("else") + "none" if self.random.random() < 0.3 else ""
        return self.tag(head + condition) + "{{ loop.%s }}" % shown + self.block(depth - 1, True) + otherwise + self.tag("endfor")

    def template(self):
        head = "{% set ns = namespace(v=1) %}{% macro m(a, b='B') %}[{{ a }}{{ b }}{{ s }}]{% endmacro %}"
        return head + self.block(2) if self.random.random() < 0.5 else head + "{{ " + self.expression(self.random.choice([1, 2, 2, 3, 4])) + " }}"


def generate(seed, count):
    """(template, context) pairs."""
    generator = Generator(seed)
    for _ in range(count):
        yield generator.template(), copy.deepcopy(CONTEXT)
