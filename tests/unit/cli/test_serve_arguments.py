"""What `ottla serve` makes of its arguments."""

from __future__ import annotations

import re

import pytest

from ottla.cli import serve
from ottla.cli.errors import BadInput


def given(*argv: str) -> dict[str, str]:
    return serve.settle(serve.parse(argv))


def test_nothing_typed_leaves_everything_to_the_options_defaults() -> None:
    assert given() == {}


def test_the_default_listeners_told_by_help_are_the_options() -> None:
    from ottla.core import options

    assert serve._listeners(serve.LISTEN) == options.LISTENERS.default
    assert serve.data_dir({}) == options.LOG_DIR.default


def test_options_become_kafkas_names() -> None:
    assert given(
        "--data-dir", "d", "--listen", "h:1", "--listen=::1:2", "--advertise", "a:3", "-o", "x.y=4"
    ) == {
        "log.dirs": "d",
        "listeners": "PLAINTEXT://h:1,PLAINTEXT://[::1]:2",
        "advertised.listeners": "PLAINTEXT://a:3",
        "x.y": "4",
    }


@pytest.mark.parametrize("argv", [["-o", "a=b=c"], ["-oa=b=c"], ["-o", " a = b=c "]])
def test_an_option_may_be_set_in_one_word_or_two_and_hold_an_equals_sign(argv: list[str]) -> None:
    assert given(*argv) == {"a": "b=c"}


def test_what_is_typed_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "read_config", lambda _: {"log.dirs": "f", "a": "f", "b": "f"})
    assert given("--config", "x", "-o", "a=t", "--data-dir", "t") == {
        "log.dirs": "t",
        "a": "t",
        "b": "f",
    }


def test_a_typed_log_dir_wins_over_the_files_log_dirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "read_config", lambda _: {"log.dirs": "f"})
    assert serve.data_dir(given("--config", "x", "-o", "log.dir=t")) == "t"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--data-dirr", "x"], "there is no option --data-dirr; try: ottla serve --data-dir DIR"),
        (["--zzz"], "there is no option --zzz; try: ottla serve --help"),
        (["--num.partitions=3"], "try: ottla serve -o num.partitions=3"),
        (["d"], "serve takes options only, not 'd'; try: ottla serve --data-dir d"),
        (["h:1"], "serve takes options only, not 'h:1'; try: ottla serve --listen h:1"),
        (["--listen"], "--listen needs a value; try: ottla serve --listen HOST:PORT"),
        (["--listen", "9092"], "try: --listen 127.0.0.1:9092"),
        (["--listen", "host"], "try: --listen host:9092"),
        (["--listen", "h:65536"], "--listen takes HOST:PORT, not 'h:65536'"),
        (["--listen", ""], "try: --listen 127.0.0.1:9092"),
        (["--advertise", "0.0.0.0:9092"], "clients can't connect to '0.0.0.0:9092'"),
        (["--advertise", "h:0"], "clients can't connect to 'h:0'"),
        (["-o", "x"], "-o takes KEY=VALUE, not 'x'; try: -o num.partitions=3"),
        (["-o", "=x"], "-o takes KEY=VALUE"),
    ],
)
def test_bad_input_is_answered_with_what_to_type(argv: list[str], sentence: str) -> None:
    with pytest.raises(BadInput, match=re.escape(sentence)):
        given(*argv)


def test_a_wildcard_without_an_advertised_address_is_warned_of() -> None:
    for address in ("0.0.0.0:7", "[::]:7", ":7", "*:7"):
        warning = serve.open_to_all(given("--listen", "127.0.0.1:1", "--listen", address))
        assert warning is not None
        assert warning.endswith("add --advertise NAME-OF-THIS-MACHINE:7")
        assert "\n" not in warning


def test_no_warning_where_clients_are_told_an_address_or_only_loopback_listens() -> None:
    assert serve.open_to_all(given("--listen", "0.0.0.0:7", "--advertise", "h:7")) is None
    assert serve.open_to_all(given("--listen", "127.0.0.1:7")) is None
    assert serve.open_to_all({}) is None


def test_the_line_of_readiness_says_version_place_data_and_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve.announcer("d")("127.0.0.1:1234")
    line = capsys.readouterr().out
    assert re.fullmatch(r"ottla \S+ ready on 127\.0\.0\.1:1234, data in d \(\d+ ms\)\n", line)


def test_the_time_since_the_start_is_that_of_the_process_not_of_the_import() -> None:
    first = serve.since_start_ms()
    assert 0 < first <= serve.since_start_ms()


def test_the_form_of_the_log_is_text_unless_json_is_asked_for() -> None:
    assert serve.parse([]).log_format == "text"
    assert serve.parse(["--log-format", "json"]).log_format == "json"
    with pytest.raises(BadInput, match="--log-format takes text or json, not 'xml'"):
        serve.parse(["--log-format=xml"])


def test_a_broker_that_is_told_no_place_shows_figures_at_the_usual_one():
    assert serve.watchable({})["admin.listener"] == serve.ADMIN
    assert serve.watchable({"admin.listener": ""}) == {"admin.listener": ""}
    assert serve.watchable({"listeners": "x"}) == {"listeners": "x"}


def test_the_place_for_figures_is_an_address_or_nothing():
    assert given("--admin", "127.0.0.1:9")["admin.listener"] == "127.0.0.1:9"
    assert given("--admin", "")["admin.listener"] == ""
    with pytest.raises(BadInput, match="--admin takes HOST:PORT"):
        given("--admin", "9")
