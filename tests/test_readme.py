"""The programs of the README and of the pages in docs run as printed, page by page, and print what is said there."""

from __future__ import annotations

import re

import pytest
from source_tree import ROOT

BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/language.md",
        "docs/semantics.md",
        "docs/inference.md",
        "docs/exact.md",
        "docs/predicting.md",
        "docs/policies.md",
    ],
)
def test_the_programs_print_what_the_page_says(page, capsys):
    text = (ROOT / page).read_text()
    names: dict = {"__name__": "page"}
    programs = 0
    for block in BLOCK.finditer(text):
        language, content = block.groups()
        if language == "python":
            line = text[: block.start(2)].count("\n")
            exec(compile("\n" * line + content, page, "exec"), names)  # errors name the page's lines
            programs += 1
        else:
            assert capsys.readouterr().out == content
    assert programs >= 2


def test_the_commands_are_those_of_the_makefile():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake (\w+)", readme):
        assert f"\n{target}:" in makefile
    steer = re.search(r'^ *borelax (steer ".*?--seed 0)', readme, re.MULTILINE | re.DOTALL).group(1)
    assert "".join(steer.split()) in "".join(makefile.split())


def test_the_folders_are_there():
    folders = re.findall(r"^\| `(\w+)/`", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(folders) == 8
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []
