"""What the pages show is true: their programs run, their commands and links exist.

See `pages` for the marks that a page may carry. In an output block, `...` stands for anything.
"""

from __future__ import annotations

import doctest
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from graphql import build_schema, parse, validate
from graphql.language import ExecutableDefinitionNode

from sharedlog.cli import main as sharedlog
from tests.meta.pages import Block, Page, read_page
from tests.meta.source import ROOT, pyproject
from tests.system.service_process import ServiceProcess

PATHS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
READ = [read_page(path) for path in PATHS]
PAGES = [pytest.param(page, id=page.path.stem) for page in READ]
PROGRAMS = [pytest.param(page, id=page.path.stem) for page in READ if page.of("python")]

PAGE_S = 60


@pytest.mark.parametrize("page", PROGRAMS)
def test_the_program_of_the_page_runs(page: Page, tmp_path: Path) -> None:
    run = [block for block in page.of("python") if not block.skip]
    folder = tmp_path / "page"
    folder.mkdir()

    if page.service:
        with ServiceProcess(tmp_path / "service.db") as service:
            names = {"URL": service.url, "TOKEN": service.token or ""}
            outputs = run_blocks(page, run, folder, names)
    else:
        outputs = run_blocks(page, run, folder, {})

    for block, printed in zip(run, outputs, strict=True):
        if block.output is not None:
            assert same_output(block.output, printed), difference(page, block, printed)


def test_blocks_that_are_not_run_say_why() -> None:
    reasons = [f"{p.path.name}:{b.line}: {b.skip}" for p in READ for b in p.blocks if b.skip]
    if reasons:
        pytest.skip("; ".join(reasons))


def run_blocks(page: Page, blocks: list[Block], folder: Path, names: dict[str, str]) -> list[str]:
    """Run the blocks in order in one new process; return what each printed."""
    task = {
        "page": str(page.path),
        "names": names,
        "blocks": [{"line": block.line, "text": block.text} for block in blocks],
    }
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_page.py"))],
        input=json.dumps(task),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PAGE_S,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["error"] is None, result["error"]
    outputs: list[str] = result["outputs"]
    return outputs


def same_output(expected: str, printed: str) -> bool:
    return doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS)


def difference(page: Page, block: Block, printed: str) -> str:
    return f"{page.path.name}:{block.line} printed\n{printed}\ninstead of\n{block.output}"


# -- commands ----------------------------------------------------------------------------


def commands(page: Page) -> Iterator[tuple[int, list[str]]]:
    """The commands of a page's console blocks, with their lines."""
    for block in page.of("console"):
        text = re.sub(r"\\\n\s*", " ", block.text)
        for offset, line in enumerate(text.splitlines()):
            if line.startswith("$ "):
                yield block.line + offset, shlex.split(line[2:], comments=True)


COMMANDS = [
    pytest.param(words, id=f"{page.path.stem}-{line}-{words[0]}")
    for page in READ
    for line, words in commands(page)
]


@pytest.mark.parametrize("words", COMMANDS)
def test_the_command_exists(words: list[str]) -> None:
    words = [word for word in words if word != "&"]
    match words:
        case ["sharedlog", *rest]:
            check_sharedlog(rest)
        case ["make", *rest]:
            check_make(rest)
        case ["pip", "install", *rest]:
            check_pip(rest)
        case ["python", "-m", module, *_]:
            assert (ROOT / module).is_dir() or module in ("benchmarks", "tests"), module
        case ["python", path, *_]:
            assert (ROOT / path).is_file(), path
        case ["git" | "cd" | "curl" | "export" | "cat" | "systemctl" | "sqlite3", *_]:
            pass
        case _:
            pytest.fail(f"no check knows the command {words[0]!r}")


def check_sharedlog(words: list[str]) -> None:
    """Parse the words with the real parser: with --help at the end, nothing is run."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = sharedlog([*words, "--help"])

    assert code == 0, f"sharedlog {shlex.join(words)}"
    flags = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--version"}
    assert [flag for flag in flags if flag not in printed.getvalue()] == []


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        if "=" in word:
            assert f"$({word.partition('=')[0]})" in makefile, word
        elif not word.startswith("-"):
            assert re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE), word


def check_pip(words: list[str]) -> None:
    project = pyproject()["project"]
    for word in words:
        match = re.fullmatch(r"sharedlog(?:\[(?P<extras>[\w,-]+)\])?", word)
        if match and match["extras"]:
            assert set(match["extras"].split(",")) <= set(project["optional-dependencies"]), word


# -- GraphQL, JSON, links ----------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_graphql_and_json_blocks_are_right(page: Page) -> None:
    schema = build_schema((ROOT / "schema.graphql").read_text(encoding="utf-8"))
    for block in page.of("graphql"):
        document = parse(block.text)
        if all(isinstance(node, ExecutableDefinitionNode) for node in document.definitions):
            assert validate(schema, document) == [], f"{page.path.name}:{block.line}"
    for block in page.of("json"):
        json.loads(block.text)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: Page) -> None:
    for target in page.links():
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        assert path.exists(), f"{page.path.name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in read_page(path).anchors(), f"{page.path.name}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_modules_that_are_named_exist(page: Page) -> None:
    folders = ("benchmarks", "client", "service", "tests")
    modules = [str(path) for folder in folders for path in (ROOT / folder).rglob("*.py")]
    named = re.findall(r"[*`]([\w/]+\.py)[*`]", page.prose)

    assert [name for name in named if not any(path.endswith(f"/{name}") for path in modules)] == []


# -- the machinery itself ----------------------------------------------------------------

SAMPLE = """\
# A page

<!-- skip: needs a moon -->

```python
raise SystemExit
```

```python
x = 1
print("a", x)
```

Prose in between.

```output
a ...
```

```python
x += 1
assert x == 3, "wrong"
```
"""


def test_a_page_is_run_in_order_and_failures_tell_their_line(tmp_path: Path) -> None:
    path = tmp_path / "sample.md"
    path.write_text(SAMPLE)
    page = read_page(path)
    first, second, third = page.of("python")

    assert (first.skip, second.output, third.line) == ("needs a moon", "a ...\n", 21)
    assert run_blocks(page, [second], tmp_path, {}) == ["a 1\n"]
    assert same_output("a ...\n", "a 1\n")
    assert not same_output("a 2\n", "a 1\n")
    with pytest.raises(AssertionError, match=r"sample.md\", line 22(?s:.*)wrong"):
        run_blocks(page, [second, third], tmp_path, {})
