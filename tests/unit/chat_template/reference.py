"""The reference: jinja2, set up as the reference library (transformers' apply_chat_template) sets it up, and the program that renders with ours."""

import datetime
import functools
import json
import subprocess

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

FIXED_TIME = datetime.datetime(2026, 3, 5, 14, 7, 9)  # as render_lines.cpp has it
SKIPPED = "skipped"


class Generation(jinja2.ext.Extension):
    """{% generation %}: renders its body; the reference library also notes where it stands."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    @staticmethod
    def _render(caller):
        return caller()


class RaisedByTemplate(Exception):
    pass


def raise_exception(message):
    raise RaisedByTemplate(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    result = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    result.filters["tojson"] = tojson
    result.globals["raise_exception"] = raise_exception
    result.globals["strftime_now"] = FIXED_TIME.strftime
    return result


@functools.lru_cache(maxsize=64)
def compiled(env, template):
    return env.from_string(template)


def render(env, template, context):
    """("text", text), or ("error", what)."""
    variables = {"tools": None, "documents": None, "add_generation_prompt": True, **context}
    try:
        return "text", compiled(env, template).render(**variables)
    except RaisedByTemplate as error:
        return "raised", str(error)
    except RecursionError:
        return SKIPPED, "recursion"
    except Exception as error:  # noqa: BLE001 - whatever Python raises is an error of the template
        return "error", f"{type(error).__name__}: {error}"


def render_ours(program, cases):
    """Our results for (template, context) pairs, in the same form; also the stage and code of an error."""
    lines = "".join(json.dumps({"template": template, "context": context}) + "\n" for template, context in cases)
    done = subprocess.run([program], input=lines.encode(), capture_output=True, timeout=240, check=True)
    return [json.loads(line) for line in done.stdout.split(b"\n") if line]
