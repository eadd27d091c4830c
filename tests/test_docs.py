"""The code in the documentation runs as it stands, and its links lead somewhere."""

from __future__ import annotations

import importlib
import pathlib
import re
import shlex

import pytest

from experiments.errors import UserError
from experiments.measuring import machine
from experiments.pages import site

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"


def blocks(path: pathlib.Path, language: str) -> list[tuple[int, str]]:
    """The line before each block of code of a page, and its text."""
    text = path.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
    return [(text[: match.start(1)].count("\n"), match[1]) for match in found]


def run(path: pathlib.Path) -> dict[str, object]:
    """A page's Python as one program, each line where it stands, for tracebacks."""
    code, names = "", {}
    for line, text in blocks(path, "python"):
        code += "\n" * (line - code.count("\n")) + text
    exec(compile(code, path, "exec"), names)
    return names


def test_the_page_on_nnx() -> None:
    assert len(blocks(DOCS / "nnx.md", "python")) == 10
    run(DOCS / "nnx.md")


def test_the_page_on_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(DOCS / "comparison.md")["found"]
    assert [*found.case["contenders"]] == ["xla", "mine"]  # type: ignore[attr-defined]
    assert "Measured on" in capsys.readouterr().out


def test_getting_started(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = DOCS / "getting-started.md"
    commands = [line for _, text in blocks(page, "bash") for line in text.splitlines()]
    assert len(commands) == 3
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "ceilings", lambda _: {"bytes_per_second": 1e10, "flops_per_second": 1e11})  # takes seconds
    for command in commands:
        python, flag, module, *arguments = shlex.split(command)
        assert (python, flag) == ("python", "-m")
        assert importlib.import_module(module).main(arguments) == 0  # without a start of Python and JAX for each
    assert run(page)["logits"].shape == (1, 10)  # type: ignore[attr-defined]


def test_the_site_has_a_page_for_each_lesson_and_public_name(tmp_path: pathlib.Path) -> None:
    import kernels
    import zoo
    from experiments.guide import topics

    site.Site(tmp_path).build()
    assert {path.stem for path in (tmp_path / "guide").glob("*.md")} == {name.replace("_", "-") for name in topics.NAMES} | {
        "index"
    }
    for package in (zoo, kernels):
        text = (tmp_path / "api" / f"{package.__name__}.md").read_text()
        assert set(re.findall(rf"^::: {package.__name__}\.(\w+)$", text, re.M)) == set(package.__all__)
    listed = set(re.findall(r"- ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    assert listed == {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.md")}
    commands = (tmp_path / "api" / "commands.md").read_text()
    assert "| `--html` |" in commands
    assert "python -m zoo" in commands


@pytest.mark.parametrize(
    ("source", "link", "target"),
    [
        ("README.md", "docs/guide.md", ("guide/index.md", "")),
        ("docs/kernels.md", "guide.md#bank-conflicts", ("guide/bank-conflicts.md", "")),
        ("docs/guide.md", "#fusion", ("guide/fusion.md", "")),
        ("README.md", "docs/training.md#fine-tuning", ("training.md", "fine-tuning")),
        ("docs/guide.md", "images/guide.png", ("images/guide.png", "")),
        ("README.md", "LICENSE", (None, "")),
    ],
)
def test_where_links_lead_on_the_site(source: str, link: str, target: tuple[str | None, str], tmp_path: pathlib.Path) -> None:
    assert site.Site(tmp_path).target(source, link) == target


def test_a_broken_link_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"docs/kernels\.md: nothing\.md leads to nothing"):
        site.Site(tmp_path).linked("docs/kernels.md", "kernels.md", "See [this](nothing.md).")
    text = "```\n[a](b.md)\n```\n[lessons](guide.md#threads)"
    assert site.Site(tmp_path).linked("docs/kernels.md", "kernels.md", text) == text.replace(
        "guide.md#threads", "guide/threads.md"
    )
