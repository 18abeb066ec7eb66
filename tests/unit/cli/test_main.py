"""The entry point: which half runs, what it imports, and how failures end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ottla import __version__
from ottla.cli.errors import CommandError
from ottla.cli.main import main

HEAVY = (
    "typer", "click", "rich", "pydantic", "http", "urllib", "email", "confluent_kafka", "argparse",
    "difflib", "tomllib", "gzip", "csv",
)  # fmt: skip


def imported_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize(
    "code",
    [
        "from ottla.cli.main import main; main(['serve', '--help'])",
        "from ottla.cli.main import main; main(['serve', '--zzz=1', '--help']) if 0 else None",
        "import ottla.cli.main, ottla.cli.serve",
        "from ottla.cli import serve; serve.settle(serve.parse(['--listen', '0.0.0.0:1']))",
    ],
)
def test_serve_imports_none_of_what_the_other_commands_need(code: str) -> None:
    bare = imported_by("")  # the environment may import things by itself, in a .pth file
    assert not (imported_by(code) - bare) & set(HEAVY)


def test_the_package_alone_imports_nothing_of_the_broker() -> None:
    code = "import ottla, sys; print(*(m for m in sys.modules if m.startswith('ottla.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"ottla.core", "ottla.core.version"}
    heavy = {*HEAVY, "asyncio", "crc32c", "socket", "sqlite3", "ssl"}
    assert not (imported_by("import ottla") - imported_by("")) & heavy


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ottla {__version__}\n"


@pytest.mark.parametrize(
    "argv", [[], ["--help"], ["topic"], ["group"], ["txn"], ["log"], ["bench"], ["serve", "--help"]]
)
def test_help_is_shown_and_is_no_failure(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith("Usage: ottla")


@pytest.mark.parametrize("group", [[], ["topic"], ["group"], ["txn"], ["log"], ["bench"]])
def test_at_80_columns_help_says_whole_sentences_of_every_command(
    group: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main([*group, "--help"])
    listed = capsys.readouterr().out.partition("Commands:")[2].splitlines()
    assert [line for line in listed if line.endswith("...") or len(line) > 80] == []
    assert len(listed) > 3


def test_the_help_of_serve_fits_into_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    main(["serve", "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


def test_the_help_of_the_whole_lists_serve_too(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    text = capsys.readouterr().out
    for name in (
        "serve",
        "topic",
        "produce",
        "consume",
        "log",
        "cluster",
        "--version",
        "--show-completion",
    ):
        assert f"  {name} " in text


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["prodce"], "ottla has no command 'prodce'; try: ottla produce"),
        (["zzz"], "ottla has no command 'zzz'; try: ottla --help"),
        (["topic", "crate", "x"], "ottla topic has no command 'crate'; try: ottla topic create"),
        (["produce"], "TOPIC is missing; try: ottla produce TOPIC [FILE]"),
        (["topic", "delete"], "NAME is missing; try: ottla topic delete NAME..."),
        (["produce", "t", "--kye", "x"], "ottla produce has no option --kye; try: ottla produce --key"),
        (
            ["topic", "config", "t", "--set", "retention.ms=1"],
            "ottla topic config has no option --set; try: ottla topic config NAME KEY=VALUE",
        ),
        (
            ["topic", "alter", "t", "--set", "retention.ms=1"],
            "ottla topic alter has no option --set; try: ottla topic alter NAME --config KEY=VALUE",
        ),
        (["consume", "t", "--from", "then"], "--from doesn't take 'then'; try: beginning, end"),
        (["consume", "t", "--bootstrap", "h"], "--bootstrap takes HOST:PORT, not 'h'; try: --bootstrap h:9092"),
        (["consume", "t", "--bootstrap", ""], "--bootstrap takes HOST:PORT"),
        (["topic", "list", "-b", "h"], "--bootstrap takes HOST:PORT, not 'h'; try: --bootstrap h:9092"),
        (["topic", "list", "-X", "a"], "-X takes KEY=VALUE, not 'a'"),
        (["topic", "create", "t", "--config", "a"], "--config takes KEY=VALUE, not 'a'"),
        (["produce", "t", "/no/such/file"], "can't read /no/such/file: No such file or directory"),
        (["produce", "t", "--header", "=b"], "--header takes NAME=VALUE, not '=b'"),
        (["topic", "alter", "t"], "there is nothing to alter; try: ottla topic alter t --partitions N"),
        (["topic", "alter", "t", "--config", "a"], "--config takes KEY=VALUE, not 'a'"),
        (["topic", "config", "t", "a=1", "b"], "show options or change them, not both"),
        (["topic", "config", "t", "a=1", "--delete", "a"], "a is set and deleted at once"),
        (["serve", "--log-format", "xml"], "--log-format takes text or json, not 'xml'"),
        (["log", "verify", "/no/such"], "can't read /no/such: No such file or directory"),
        (["serve", "x"], "serve takes options only, not 'x'"),
        (["topic", "create", "t", "--partitions", "x"], "--partitions takes a whole number from 1 to 100000; try: ottla topic create --partitions 1"),
        (["consume", "t", "-n", "0"], "-n takes a whole number from 1; try: ottla consume -n 1"),
        (["bench", "fetch", "--seconds", "x"], "--seconds takes a number from 0.1; try: ottla bench fetch --seconds "),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"ottla: {sentence}")
    assert captured.err.count("\n") == 1


def test_an_unknown_technique_is_refused_before_a_report_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    assert main(["bench", "techniques", "telepathy", "--html", str(report)]) == 2
    assert capsys.readouterr().err.startswith("ottla: there is no technique 'telepathy'")
    assert not report.exists()


def test_usage_errors_of_values_say_where_help_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["produce", "t", "--compression", "zsdt"]) == 2
    error = capsys.readouterr().err
    assert "zstd" in error
    assert error.endswith("; try: ottla produce --help\n")


def test_no_broker_is_one_sentence_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("confluent_kafka")
    assert main(["topic", "list", "--bootstrap", "127.0.0.1:1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ottla: no broker at 127.0.0.1:1 (")
    assert error.count("\n") == 1


def test_a_missing_client_library_is_one_sentence_with_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    assert main(["topic", "list"]) == 1
    assert capsys.readouterr().err == (
        "ottla: this command needs confluent-kafka; try: pip install 'ottla[client]'\n"
    )


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("ottla.cli.serve.run", interrupted)
    assert main(["serve"]) == 130


def test_a_sentence_with_what_a_broker_said_in_it_stays_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: object) -> int:
        raise CommandError("no\n\x1b[2Jforged")

    monkeypatch.setattr("ottla.cli.serve.run", refused)
    assert main(["serve"]) == 1
    assert capsys.readouterr().err == "ottla: no\\n\\x1b[2Jforged\n"


def completed(words: str) -> list[str]:
    """What bash is offered for the last word."""
    environment = dict(os.environ, _OTTLA_COMPLETE="complete_bash", COMP_WORDS=words)
    environment["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    done = subprocess.run(
        [sys.executable, "-m", "ottla"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("ottla con", ["consume"]),
        ("ottla topic al", ["alter"]),
        ("ottla consume --fo", ["--follow", "--format"]),
        ("ottla serve --da", ["--data-dir"]),
        ("ottla produce t --compression z", ["zstd"]),
    ],
)
def test_the_shell_completes_commands_options_and_choices(words: str, offered: list[str]) -> None:
    assert completed(words) == offered
