"""Style is a test: what reviewers would otherwise say again and again.

A rule is a function from a source file to complaints. ``RULES`` says where each one applies and shows a
piece of code that breaks it, so that a rule which can no longer fail is noticed. Exceptions are listed at
the top, each with its reason; they go away when they are no longer needed.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
CODE = ("orchestrator", "activities", "examples", "bench")

FILE_LINES = 400
"""p90 of the best Python code bases lies between 284 and 548: a longer file asks for a second look."""

TEST_FILE_LINES = 500
"""Tables of cases are long and easily read."""

FUNCTION_LINES = 60
"""p99 of the best Python code bases lies between 54 and 79."""

LONG_FILES: dict[str, str] = {
    "orchestrator/coordinator/coordinator.py": "the loop and its six steps, in the order of its docstring",
    "orchestrator/coordinator/turn.py": "the one place where rules meet user code",
    "orchestrator/coordinator/partition.py": "all that is known of one partition while it is owned",
    "orchestrator/engine/activity.py": "one life-cycle: decide and evolve side by side",
    "orchestrator/log/simulated.py": "the cluster, its appenders and members: apart they would be a cycle",
    "orchestrator/log/commit_log.py": "one algorithm: the group commit and what readers see of it",
    "tests/unit/worker/test_worker.py": "one worker from its first beat to its last",
    "orchestrator/workflow/instance.py": "one running workflow: facts in, actions out",
}

LONG_FUNCTIONS: dict[str, str] = {
    "orchestrator/api/messages.py:message_routes": "a list of routes, each of a few lines",
    "orchestrator/api/workflows.py:workflow_routes": "a list of routes, each of a few lines",
}

TESTS_WITHOUT_A_MIRROR: dict[str, str] = {
    "workflow/test_order.py": "golden traces through loop, ordered and instance together",
    "contrib/test_activities.py": "what every ready activity promises",
    "demo/test_workflows.py": "both processes, where the demo does not go",
    "coordinator/test_traces.py": "one promise from the command to what is sent, in five files",
    "workflow/test_eviction.py": "one promise that instance and loop keep together",
}

LAZY_IMPORTS: dict[str, str] = {
    "orchestrator/__init__.py": "an activity needs no HTTP, `--help` needs nothing",
    "orchestrator/cli/": "`--help` and completion answer at once",
    "orchestrator/demo/command.py": "the same",
    "orchestrator/log/connect.py": "who runs in one process needs no HTTP client",
    "orchestrator/telemetry/tracing.py": "who has no tracer needs no OpenTelemetry",
}

PRINTS: dict[str, str] = {
    "orchestrator/cli/": "its output is the product",
    "orchestrator/demo/": "its output is the product",
    "orchestrator/codec/schema.py": "`make schemas` says what it wrote",
    "bench/": "its output is the product",
    "examples/": "their output is the product",
}

SLEEPS: dict[str, str] = {
    "tests/unit/workflow/test_determinism.py": "shows that workflow code may not",
}

SKIPS: dict[str, str] = {
    "tests/browser/conftest.py": "a machine may have no browser; where CI is set, a skip is a failure",
    "tests/kafka/fixtures.py": "a machine may have no broker; where CI is set, a skip is a failure",
}

UNIMPORTED: dict[str, str] = {}
UNDECLARED: dict[str, str] = {
    "starlette": "FastAPI consists of it, hands out its classes and bounds its version"
}


class Source(NamedTuple):
    """A file, by its path from the root."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """Its syntax."""
        return _parse(self.text)

    @property
    def lines(self) -> list[str]:
        """Its lines, without their ends."""
        return self.text.split("\n")

    def grep(self, pattern: str, *, flags: int = 0) -> Iterator[tuple[int, str]]:
        """Line numbers and what was found."""
        for number, line in enumerate(self.lines, 1):
            if found := re.search(pattern, line, flags):
                yield number, found[0]

    def calls(self) -> Iterator[tuple[int, str]]:
        """Line numbers of calls, and what is called."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node.lineno, ast.unparse(node.func)


@cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


def _excepted(path: str, exceptions: dict[str, str]) -> bool:
    return any(path == known or (known.endswith("/") and path.startswith(known)) for known in exceptions)


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


# ---------------------------------------------------------------------------------------- the rules


def files_are_short(source: Source) -> Iterator[str]:
    limit = TEST_FILE_LINES if source.path.startswith("tests/") else FILE_LINES
    if len(source.lines) > limit and source.path not in LONG_FILES:
        yield f"{len(source.lines)} lines, more than {limit}: split it, or give the reason in LONG_FILES"


def functions_are_short(source: Source) -> Iterator[str]:
    for node in _functions(source.tree):
        lines = (node.end_lineno or 0) - node.lineno + 1
        if lines > FUNCTION_LINES and f"{source.path}:{node.name}" not in LONG_FUNCTIONS:
            yield f"{node.lineno}: {node.name} has {lines} lines, more than {FUNCTION_LINES}"


def nothing_is_put_off(source: Source) -> Iterator[str]:
    for number, found in source.grep(r"\b(TODO|FIXME|XXX|HACK)\b"):
        yield f"{number}: {found}: do it, or write an issue"


def modules_have_docstrings(source: Source) -> Iterator[str]:
    if source.text.strip() and not ast.get_docstring(source.tree):
        yield "1: a module says in its first line what it is"


def the_package_does_not_print(source: Source) -> Iterator[str]:
    for number, name in source.calls():
        if name == "print" and not _excepted(source.path, PRINTS):
            yield f"{number}: print in a library: use a logger"


def limits_have_reasons(source: Source) -> Iterator[str]:
    body = source.tree.body
    for index, node in enumerate(body):
        for name in _constants(node):
            if re.search(r"MAX|LIMIT|_(S|MS|BYTES|RECORDS|CHARS|LINES)$", name) and not _explained(
                source.lines, body, index
            ):
                yield f"{node.lineno}: {name} has no reason: a docstring below it, or a comment"


def _constants(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if name.isupper()]


def _explained(lines: list[str], body: list[ast.stmt], index: int) -> bool:
    """A comment above or beside, or a docstring below; neighbours without a blank line share it."""
    node = body[index]
    if lines[node.lineno - 2].startswith("#") or "  # " in lines[(node.end_lineno or 0) - 1]:
        return True
    for after, following in zip(body[index:], body[index + 1 :], strict=False):
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            return True
        if not _constants(following) or following.lineno > (after.end_lineno or 0) + 1:
            return False
    return False


def imports_stand_at_the_top(source: Source) -> Iterator[str]:
    if _excepted(source.path, LAZY_IMPORTS):
        return
    for function in _functions(source.tree):
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield f"{node.lineno}: an import inside {function.name}: move it, or name it in LAZY_IMPORTS"


def no_test_is_skipped(source: Source) -> Iterator[str]:
    if _excepted(source.path, SKIPS):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if re.fullmatch(r"pytest\.(mark\.)?(skip|skipif|xfail|importorskip)", name):
                yield f"{node.lineno}: {name}: a test runs, or it is deleted"


def no_test_sleeps(source: Source) -> Iterator[str]:
    for number, name in source.calls():
        if name == "time.sleep" and not _excepted(source.path, SLEEPS):
            yield f"{number}: wait for the state itself (an event, a condition), not for some time"


def unit_tests_mirror_the_tree(source: Source) -> Iterator[str]:
    test = source.path.removeprefix("tests/unit/")
    tested = ROOT / "orchestrator" / re.sub(r"(^|/)test_", r"\1", test)
    if "/test_" in f"/{test}" and not tested.exists() and test not in TESTS_WITHOUT_A_MIRROR:
        yield f"1: there is no {tested.relative_to(ROOT)}: move the test, or give the reason"


def code_speaks_of_itself_only(source: Source) -> Iterator[str]:
    words = (
        r"claude|anthropic|openai|chatgpt|copilot|language model|\bllms?\b(?!(-full)?[-_.]txt)"
        r"|ai[- ](assisted|generated)"
    )
    for number, found in source.grep(words, flags=re.IGNORECASE):
        yield f"{number}: {found!r}: text is about the software, not about how it came to be"


def no_machine_is_special(source: Source) -> Iterator[str]:
    places = r"(?<![\w.}])/(work|root|home|Users|opt)/\w+|pypi\.org|pythonhosted|--(extra-)?index-url"
    for number, found in source.grep(places):
        yield f"{number}: {found!r}: this place is not on every machine"


def lines_end_cleanly(source: Source) -> Iterator[str]:
    for number, _ in source.grep(r"[ \t\r]+$"):
        yield f"{number}: white space at the end of the line"
    if source.text and not source.text.endswith("\n"):
        yield f"{len(source.lines)}: the last line has no end"


def documented_targets_exist(source: Source) -> Iterator[str]:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for number, line in enumerate(source.lines, 1):
        for target in re.findall(r"(?:^|`|\$ )make (\w+)", line):
            if target not in targets:
                yield f"{number}: `make {target}`: the Makefile knows {', '.join(sorted(targets))}"


def links_lead_somewhere(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.lines, 1):
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", line):
            if "://" not in link and not (ROOT / source.path).parent.joinpath(link).exists():
                yield f"{number}: {link} does not exist"


def named_files_exist(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.lines, 1):
        for name in re.findall(r"`((?:orchestrator|docs|tests|schemas|activities|examples)/[\w/.-]+)`", line):
            if not (ROOT / name).exists():
                yield f"{number}: {name} does not exist"


# --------------------------------------------------------------------------------------- the checks


class Rule(NamedTuple):
    """A rule, the files it is about, and code that breaks it (in a file of that path)."""

    check: Callable[[Source], Iterator[str]]
    where: tuple[str, ...]
    broken: str
    path: str = "orchestrator/log/wrong.py"

    @property
    def name(self) -> str:
        """For people."""
        return self.check.__name__.replace("_", " ")


_PYTHON = tuple(f"{folder}/**/*.py" for folder in (*CODE, "tests"))
_LIBRARY = tuple(f"{folder}/**/*.py" for folder in CODE)
_TESTS = ("tests/**/*.py",)
_DOCS = ("*.md", "docs/**/*.md")
_HOUSE = ("Makefile", ".ci/*", "pyproject.toml", "schemas/*")

RULES = (
    Rule(files_are_short, _PYTHON, "\n" * 400),
    Rule(functions_are_short, _LIBRARY, "def f():\n" + "    f()\n" * 60),
    Rule(nothing_is_put_off, (*_PYTHON, *_DOCS, *_HOUSE), "# TODO: later\n"),
    Rule(modules_have_docstrings, _LIBRARY, "import ast\n"),
    Rule(the_package_does_not_print, _LIBRARY, "print(1)\n"),
    Rule(limits_have_reasons, _LIBRARY, "MAX_ROWS = 1\nPOLL_S = 2\n\nX = 3\n'''Why.'''\n"),
    Rule(imports_stand_at_the_top, ("orchestrator/**/*.py",), "def f():\n    import ast\n"),
    Rule(no_test_is_skipped, _TESTS, "@pytest.mark.skipif(True)\ndef f(): ...\n"),
    Rule(no_test_sleeps, _TESTS, "import time\ntime.sleep(1)\n"),
    Rule(unit_tests_mirror_the_tree, ("tests/unit/**/*.py",), "", "tests/unit/log/test_nothing.py"),
    Rule(code_speaks_of_itself_only, (*_PYTHON, *_DOCS, *_HOUSE), "# written by Copilot\n"),
    Rule(no_machine_is_special, (*_PYTHON, *_DOCS, *_HOUSE), "DATA = '/root/data'\n"),
    Rule(lines_end_cleanly, (*_PYTHON, *_DOCS, *_HOUSE), "x = 1 \n"),
    Rule(documented_targets_exist, _DOCS, "Run `make coffee`.\n", "README.md"),
    Rule(links_lead_somewhere, _DOCS, "See [this](docs/nothing.md#there).\n", "README.md"),
    Rule(named_files_exist, _DOCS, "See `orchestrator/nothing.py`.\n", "README.md"),
)


def _sources(patterns: tuple[str, ...]) -> Iterator[Source]:
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern)}):
        name = path.relative_to(ROOT).as_posix()
        if path.is_file() and path != Path(__file__):  # this file must name what it forbids
            yield Source(name, _read(path))


@cache
def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name.replace(" ", "-"))
def test_the_rule_holds(rule: Rule) -> None:
    found = [f"{source.path}:{said}" for source in _sources(rule.where) for said in rule.check(source)]
    assert not found, f"{rule.name}:\n" + "\n".join(found)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name.replace(" ", "-"))
def test_the_rule_can_be_broken(rule: Rule) -> None:
    assert list(rule.check(Source(rule.path, rule.broken)))


def test_every_exception_is_needed() -> None:
    excused = {
        path: limit
        for path in LONG_FILES
        for limit in [TEST_FILE_LINES if path.startswith("tests/") else FILE_LINES]
        if len(_read(ROOT / path).split("\n")) <= limit
    }
    assert not excused, f"these files are short: take them out of LONG_FILES: {sorted(excused)}"
    named = {
        *LONG_FILES,
        *LAZY_IMPORTS,
        *PRINTS,
        *SLEEPS,
        *SKIPS,
        *(f"tests/unit/{test}" for test in TESTS_WITHOUT_A_MIRROR),
    }
    gone = [path for path in named if not (ROOT / path).exists()]
    assert not gone, f"these files are gone: take them out of the exceptions: {gone}"


# ------------------------------------------------------------------------------------- distribution


class Project:
    """What pyproject.toml says."""

    @cached_property
    def _toml(self) -> dict[str, Any]:
        return tomllib.loads(_read(ROOT / "pyproject.toml"))

    @property
    def _listed(self) -> list[str]:
        project = self._toml["project"]
        extras = project.get("optional-dependencies", {}).values()
        return [*project["dependencies"], *(line for extra in extras for line in extra)]

    @property
    def dependencies(self) -> set[str]:
        """Names of the distributions that an installation brings, with all its extras."""
        return {_normal(re.split(r"[<>=!~ \[;]", line)[0]) for line in self._listed}

    @property
    def unbounded(self) -> list[str]:
        """Requirements without a floor: they would install versions that nobody has tried."""
        groups = self._toml["dependency-groups"].values()
        listed = [*self._listed, *(line for group in groups for line in group)]
        return [line for line in listed if isinstance(line, str) and ">=" not in line]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported(patterns: tuple[str, ...]) -> set[str]:
    names: set[str] = set()
    for source in _sources(patterns):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"orchestrator"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    providers = packages_distributions()
    imported = _imported(("orchestrator/**/*.py", "activities/**/*.py"))
    # A namespace such as `opentelemetry` is shared by several, of which one has to be declared.
    owners = [{_normal(name) for name in providers.get(module, [module])} for module in imported]
    declared = Project().dependencies
    undeclared = [names for names in owners if not names & (declared | set(UNDECLARED))]
    assert not undeclared, "imported, but not in [project.dependencies]"
    unused = declared - set().union(*owners) - set(UNIMPORTED)
    assert not unused, "in [project.dependencies], but not imported"


def test_every_requirement_has_a_floor() -> None:
    assert not Project().unbounded
