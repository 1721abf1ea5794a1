import pytest

from orchestrator.protocol.traces import MAX_TRACESTATE_CHARS, handed_on, trace_context, trace_of_record

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_what_w3c_knows_is_taken_and_nothing_else() -> None:
    headers = {"traceparent": PARENT, "tracestate": "congo=t61rcWkgMzE", "baggage": "secret=1"}
    assert trace_context(headers) == {"traceparent": PARENT, "tracestate": "congo=t61rcWkgMzE"}
    assert trace_context({"traceparent": PARENT}) == {"traceparent": PARENT}
    assert trace_context({"tracestate": "congo=t61rcWkgMzE"}) == {}


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"{PARENT}-more",
        f" {PARENT}",
    ],
)
def test_what_is_no_trace_says_nothing(parent: str) -> None:
    assert trace_context({"traceparent": parent, "tracestate": "a=b"}) == {}


@pytest.mark.parametrize("state", ["", "a=" + "b" * MAX_TRACESTATE_CHARS, "a=\n", "a=\u00e9"])
def test_a_state_that_cannot_be_written_is_left_out(state: str) -> None:
    assert trace_context({"traceparent": PARENT, "tracestate": state}) == {"traceparent": PARENT}


def test_records_of_other_producers_have_it_in_their_headers() -> None:
    headers = {"traceparent": PARENT.encode(), "tracestate": b"a=b", "from": b"shop"}
    assert trace_of_record(headers) == {"traceparent": PARENT, "tracestate": "a=b"}
    assert trace_of_record({"traceparent": b"\xff"}) == {}
    assert trace_of_record({"from": b"shop"}) == {}


def test_whose_child_a_run_is_concerns_nobody_else() -> None:
    headers = {"traceparent": PARENT, "tracestate": "a=b", "parent-span": SPAN}
    assert handed_on(headers) == {"traceparent": PARENT, "tracestate": "a=b"}
    assert handed_on({}) == {}
