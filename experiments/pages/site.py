"""The pages of the documentation site, from README.md, docs/ and the sources: python -m experiments.pages.site FOLDER.

Writes what mkdocs.yml lists: README.md as the first page, docs/ with a page per lesson of the guide, and the pages of the
reference, which mkdocstrings fills from the docstrings. Imports nothing beyond the standard library: the site's environment
holds neither JAX nor this project.
"""

from __future__ import annotations

import ast
import pathlib
import posixpath
import re
import shutil
import sys

from experiments.errors import UserError, run

ROOT = pathlib.Path(__file__).parents[2]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)
LESSON = re.compile(r"^## (.+)$", re.M)
GUIDE = "docs/guide.md"
# By heading; after the first within experiments/. Named so that nobody takes the strings for imports.
COMMANDS = {
    "Models and kernels": ("zoo", "kernels"),
    "Training": ("train", "evaluate", "generate", "status"),
    "Comparing and compiling": ("compare", "comparison/compiled", "inspect", "execute", "guide", "gpu", "report"),
}
OPTIONS = "    options:\n      members: false\n      show_root_heading: false\n      show_root_toc_entry: false\n"


def slug(title: str) -> str:
    """A heading's anchor, as GitHub and Python-Markdown have it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def lessons(text: str) -> tuple[str, dict[str, str]]:
    """The guide's introduction, and each lesson by its anchor, its headings a level higher."""
    first, *rest = re.split(r"^(?=## )", text, flags=re.M)
    found = {}
    for lesson in rest:
        title = LESSON.match(lesson)
        assert title is not None
        found[slug(title[1])] = re.sub(r"^#(#+ )", r"\1", lesson, flags=re.M)
    return first, found


class Site:
    """Where each file of the repository is on the site, and its text with the links that follow from it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.pages = {"README.md": "index.md"}
        self.pages |= {f"docs/{path.name}": path.name for path in sorted((ROOT / "docs").glob("*.md"))}
        self.pages[GUIDE] = "guide/index.md"
        self.lessons = lessons((ROOT / GUIDE).read_text())[1]

    def target(self, source: str, link: str) -> tuple[str | None, str]:
        """The page or picture on the site that a link of a file means, None if it is no part of the site; and its anchor.

        Raises:
          UserError: the repository has no such file.
        """
        path, _, anchor = link.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path)) if path else source
        if not (ROOT / file).exists():
            raise UserError(f"{source}: {link} leads to nothing")
        if file == GUIDE and anchor in self.lessons:
            return f"guide/{anchor}.md", ""
        if file.endswith(".png"):
            name = posixpath.basename(file) if file.startswith("docs/images/") else file.replace("/", "-")
            return f"images/{name}", ""
        return self.pages.get(file), anchor

    def linked(self, source: str, page: str, text: str) -> str:
        """The text of a file as it stands on a page: links lead to pages, pictures are copied."""

        def one(match: re.Match[str]) -> str:
            mark, label, link = match.groups()
            label = LINK.sub(one, label)
            if re.match(r"[a-z+]+:", link):
                return f"{mark}[{label}]({link})"
            to, anchor = self.target(source, link)
            if to is None:
                return label  # a file of the repository alone
            if to.startswith("images/"):
                file = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
                (self.folder / "images").mkdir(exist_ok=True)
                shutil.copy(ROOT / file, self.folder / to)
            way = posixpath.relpath(to, posixpath.dirname(page) or ".") if to != page or not anchor else ""
            return f"{mark}[{label}]({way}{'#' + anchor if anchor else ''})"

        # Code is left as it is.
        return "".join(part if part.startswith("```") else LINK.sub(one, part) for part in FENCE.split(text))

    def write(self, page: str, text: str) -> None:
        path = self.folder / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def build(self) -> None:
        for source, page in self.pages.items():
            text = (ROOT / source).read_text()
            if source == GUIDE:
                text, found = lessons(text)
                for name, lesson in found.items():
                    self.write(f"guide/{name}.md", self.linked(source, f"guide/{name}.md", lesson))
            self.write(page, self.linked(source, page, text))
        self.write("assets/iframe-worker.js", (ROOT / "docs" / "site" / "iframe-worker.js").read_text())
        for package in ("zoo", "kernels"):
            self.write(f"api/{package}.md", reference(package))
        self.write("api/commands.md", commands())


def public(package: str) -> list[str]:
    """What `__all__` of a package names."""
    for node in ast.parse((ROOT / package / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(n, ast.Name) and n.id == "__all__" for n in node.targets):
            return sorted(ast.literal_eval(node.value), key=str.lower)
    raise UserError(f"{package}: no __all__")


def reference(package: str) -> str:
    """A page that mkdocstrings fills: the package's docstring, then each public name."""
    names = "".join(f"\n::: {package}.{name}\n" for name in public(package))
    return f"# `{package}`\n\n::: {package}\n{OPTIONS}{names}"


def commands() -> str:
    """A page with each command: its docstring and its flags."""
    text = "# Command line\n\n`--help` lists the flags of each command; `make train`, `make test` and `make gpu` call them.\n"
    for title, modules in COMMANDS.items():
        text += f"\n## {title}\n"
        for name in modules:
            path = ROOT / name if name in ("zoo", "kernels") else ROOT / "experiments" / name
            module = path.relative_to(ROOT).as_posix().replace("/", ".")
            path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
            doc = ast.get_docstring(ast.parse(path.read_text())) or ""
            text += f"\n### `python -m {module}`\n\n{doc.replace('[', chr(92) + '[')}\n"  # no link in what is optional
            if flags := list(arguments(path)):
                text += "\n| flag | meaning |\n| --- | --- |\n" + "".join(f"| `{name}` | {what} |\n" for name, what in flags)
    return text


def arguments(path: pathlib.Path) -> list[tuple[str, str]]:
    """Names and help of the flags that a file adds to a parser, in its order."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            said = next((keyword.value for keyword in node.keywords if keyword.arg == "help"), None)
            if names:
                found.append((node.lineno, ", ".join(map(str, names)), _said(said).replace("|", "\\|")))
    return [(name, what) for _, name, what in sorted(found)]


def _said(node: ast.expr | None) -> str:
    """The text of a help; what is put in when the program runs is an ellipsis."""
    if isinstance(node, ast.Constant):
        return str(node.value).replace("%%", "%")
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def main(given: list[str]) -> int:
    if len(given) != 1:
        raise UserError(f"FOLDER: {' '.join(given) or 'nothing'} given, one folder is needed")
    folder = pathlib.Path(given[0])
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    Site(folder).build()
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
