"""Templates, their filters, and links."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from jinja2 import UndefinedError

from orchestrator.api.pages import rendering
from orchestrator.api.pages.rendering import bytes_text, causes, environment, payload_text
from orchestrator.protocol.values import Failure, FailureKind, Payload


def rendered(text: str, root: str = "", **context: object) -> str:
    return environment(root).from_string(text).render(context)


@pytest.mark.parametrize(
    ("root", "names", "link"),
    [
        ("", (), "/workflows"),
        ("/x", (), "/x/workflows"),
        ("/x", ("a/b c", "ü?#&"), "/x/workflows/a%2Fb%20c/%C3%BC%3F%23%26"),
    ],
)
def test_a_link_escapes_names_as_a_whole(root: str, names: Sequence[str], link: str) -> None:
    assert rendered("{{ link('/workflows', *names) }}", root, names=names) == link


def test_a_link_leaves_out_what_is_not_given() -> None:
    assert rendered("{{ link('/stuck', q='a=b&c', page='', n=0, x=none) }}") == "/stuck?q=a%3Db%26c&amp;n=0"


def test_a_name_that_a_template_does_not_have_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        rendered("{{ nothing }}")


def test_everything_is_escaped() -> None:
    assert rendered("{{ x }}", x="<b a='1'>") == "&lt;b a=&#39;1&#39;&gt;"


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (Payload(data=b'"two\\nlines <b>"'), "two\nlines <b>"),
        (Payload(data=b'{"a":[1]}'), '{\n  "a": [\n    1\n  ]\n}'),
        (Payload(data='"\u202e"'.encode()), "\u202e"),
        (Payload(data=b"", encoding="binary/null"), "null"),
        (Payload(data=b"\xff\x00", encoding="binary/plain"), "ff00"),
        (Payload(data=b"x", encoding="binary/secret"), "x"),
        (Payload(data=b"no json"), "no json"),
    ],
)
def test_a_payload_is_text(payload: Payload, text: str) -> None:
    assert payload_text(payload) == text


def test_json_that_is_too_deep_is_shown_as_it_stands() -> None:
    deep = b"[" * 100_000
    assert payload_text(Payload(data=deep)) == deep.decode()


def test_causes_go_down_to_the_root() -> None:
    root = Failure(kind=FailureKind.APPLICATION, message="root")
    top = Failure(kind=FailureKind.ACTIVITY, message="top", cause=root)
    assert [one.message for one in causes(top)] == ["top", "root"]
    assert list(causes(None)) == []


@pytest.mark.parametrize(
    ("data", "text"), [(b"a\tb\n", "a\tb\n"), (b"\x00ab", "00 6162"), (b"\xff\xfe\x01", "ff fe01")]
)
def test_bytes_are_text_if_they_can_be(data: bytes, text: str) -> None:
    assert bytes_text(data) == text


def test_times_say_when_and_how_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "now_ms", lambda: 1_700_000_060_000)
    assert rendered("{{ ui.time(t) }}", t=1_700_000_000_123).endswith(">59 s ago</time>")
    assert 'datetime="2023-11-14T22:13:20.123Z"' in rendered("{{ ui.time(t) }}", t=1_700_000_000_123)
    assert rendered("{{ ui.time(none) }}") == ""
