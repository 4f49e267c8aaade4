"""The README's programs run as printed, in order and in one session, and print what it says they print."""

from __future__ import annotations

import re

from tree import ROOT

BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_programs_print_what_the_readme_says(capsys):
    text = (ROOT / "README.md").read_text()
    names: dict = {"__name__": "readme"}
    programs = 0
    for block in BLOCK.finditer(text):
        language, content = block.groups()
        if language == "python":
            line = text[: block.start(2)].count("\n")
            exec(compile("\n" * line + content, "README.md", "exec"), names)  # errors name the README's lines
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
