"""The command line: help without JAX, and every mistake as one line and exit code 2."""

from __future__ import annotations

import subprocess
import sys

import pytest

from borelax import inference
from borelax.cli import main as command
from borelax.cli.main import main
from borelax.models import constraint


@pytest.mark.parametrize("arguments", [["--help"], ["steer", "--help"], ["--version"], ["steer", ""]])
def test_help_and_usage_errors_import_neither_jax_nor_rich(arguments):
    code = (
        "import sys; from borelax.cli.main import main; status = main(sys.argv[1:]); "
        "assert not {'jax', 'flax', 'numpy', 'rich'} & set(sys.modules), 'heavy'; sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == (2 if "" in arguments else 0), done.stderr


def test_python_m_runs_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "borelax.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("borelax ")


def test_choices_are_the_librarys():
    assert command.TRUNCATIONS == constraint.TRUNCATIONS
    assert command.USES == constraint.USES
    for name in command.RESAMPLERS:
        assert issubclass(getattr(inference, name), inference.Resampling)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "COMMAND"),
        (["steer"], "PROMPT"),
        (["steer", ""], "empty"),
        (["steer", "a", "--particles", "0"], "positive integer"),
        (["steer", "a", "--particles", "-3"], "positive integer"),
        (["steer", "a", "--max-tokens", "0"], "positive integer"),
        (["steer", "a", "--max-tokens", "many"], "positive integer"),
        (["steer", "a", "--temperature", "0"], "positive number"),
        (["steer", "a", "--temperature", "nan"], "positive number"),
        (["steer", "a", "--ess-threshold", "-1"], "at least 0"),
        (["steer", "a", "--seed", "-1"], "4294967295"),
        (["steer", "a", "--stop", ""], "empty"),
        (["steer", "a", "--regex", "(b"], "unterminated"),
        (["steer", "a", "--truncation", "sometimes"], "condition_on_ending"),
        (["steer", "a", "--resampler", "fair"], "systematic"),
        (["steer", "a", "--html", "/no/such/folder/page.html"], "No such file or directory"),
        (["steer", "a", "--html", "/"], "directory"),
        (["steer", "a", "--model", "smollm3"], "smollm2-135m"),
        (["stear", "a"], "steer"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, said, capsys):
    assert main(arguments) == 2
    assert_one_line(capsys, said)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["a", "--regex", "[^\\s\\S]"], "matches no string"),
        (["a", "--regex", "(?=b)b"], "look"),
        (["a", "--regex", "[0-9]{9}", "--max-tokens", "4", "--truncation", "reachable"], "9 tokens"),
        (["a" * 90, "--max-tokens", "7"], "context of 96"),
        (["a" * 200, "--max-tokens", "7"], "context of 96"),
        (["a", "--max-tokens", "96"], "context of 96"),
    ],
)
def test_what_only_the_model_can_tell_is_one_line_too(arguments, said, folder, capsys):
    assert main(["steer", *arguments, "--particles", "2", "--model", str(folder)]) == 2
    assert_one_line(capsys, said)


def test_a_folder_without_a_model(tmp_path, capsys):
    assert main(["steer", "a", "--model", str(tmp_path)]) == 2
    assert_one_line(capsys, "config.json")


def test_checking_the_page_leaves_no_file_behind(tmp_path, capsys):
    assert main(["steer", "a", "--model", "smollm3", "--html", str(tmp_path / "page.html")]) == 2
    assert not list(tmp_path.iterdir())


def test_an_interrupt_is_exit_code_130(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("borelax.cli.main._steer", interrupted)
    assert main(["steer", "a"]) == 130
    assert capsys.readouterr().err == ""


def assert_one_line(capsys, said: str) -> None:
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("borelax: error: ")
    assert printed.err.count("\n") == 1 and printed.err.endswith("\n")
    assert said in printed.err
