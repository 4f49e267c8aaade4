"""The page: complete, self-contained, and safe against what a model writes."""

from __future__ import annotations

import json
import re
from html import escape
from html.parser import HTMLParser

import pytest

from borelax.cli.main import main

PROMPT = "</script><b>{{data}}</b> &amp;"
VOID = {"meta", "br", "link", "input", "img", "hr"}


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """The text of a page, and the particles on it."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("borelax.cli.report.print", lambda *texts, **_: printed.extend(texts), raising=False)
        options = ["--regex", "([<&\"'{}a-c]{1,4}[\n ])+", "--particles", "12", "--max-tokens", "16"]
        assert main(["steer", PROMPT, "--model", str(folder), *options, "--json", "--html", str(path)]) == 0
    return path.read_text(encoding="utf-8"), json.loads(printed[0])


def test_it_refers_to_nothing_outside(made):
    page, _ = made
    assert not re.findall(r"https?://", page.replace('xmlns="http://www.w3.org/2000/svg"', ""))
    assert not re.findall(r"<link|@import|url\(|\ssrc=|\shref=", page)


def test_every_text_is_on_it_escaped(made):
    page, told = made
    for particle in told["particles"]:
        assert f">{escape(particle['text'])}</span>" in page
    assert escape(PROMPT) in page and PROMPT not in page


def test_its_elements_are_balanced(made):
    class Balance(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attributes):
            if tag not in VOID:
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Balance()
    parser.feed(made[0])
    parser.close()
    assert parser.open == []


def test_no_placeholder_is_left(made):
    page, _ = made
    assert "{{" not in page.replace(escape(PROMPT), "").split("<body>")[0]
    assert page.count("<svg") == 2


def test_its_genealogy_spells_the_texts(made):
    page, told = made
    data = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    )
    steps = len(data["tokens"])
    assert steps == 16 and len(data["ess"]) == 16
    for slot, particle in enumerate(told["particles"]):
        spelled = []
        for t in range(steps - 1, -1, -1):
            if data["drawn"][t][slot]:
                spelled.append(data["spellings"][data["tokens"][t][slot]])
            slot = data["parents"][t][slot]
        assert "".join(reversed(spelled)) == particle["text"]
    assert data["logEvidence"][-1] == pytest.approx(told["log_evidence"], abs=0.006)
    assert data["ess"][-1] == pytest.approx(told["ess"], abs=0.006)
    for shares in data["share"]:
        assert sum(shares) == pytest.approx(1.0, abs=0.01)


def test_a_page_of_the_dead_says_so(folder, tmp_path, capsys):
    path = tmp_path / "dead.html"
    options = ["--regex", "[0-9]{9}", "--use", "factor", "--particles", "3", "--max-tokens", "10"]
    assert main(["steer", "a", "--model", str(folder), *options, "--html", str(path)]) == 1
    assert "all 3 particles died at &#x27;text.constraint&#x27;" in path.read_text(encoding="utf-8")
