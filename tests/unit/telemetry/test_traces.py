from orchestrator.protocol.commands import SignalWorkflow, StartWorkflow
from orchestrator.telemetry.traces import INCOMING, Untraced

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
START = StartWorkflow(workflow_id="o-1", workflow_type="Order")


def test_a_role_without_spans_hands_on_what_others_wrote() -> None:
    traced = StartWorkflow(
        workflow_id="o-1", workflow_type="Order", headers={"traceparent": PARENT, "other": "x"}
    )
    assert Untraced().run_headers(traced, "r") == {"traceparent": PARENT}
    assert Untraced().run_headers(START, "r") == {}


def test_what_a_request_asks_of_the_engine_belongs_to_its_trace() -> None:
    command = SignalWorkflow(workflow_id="o-1", signal_name="approve")
    with Untraced().call(command) as call:
        assert call.headers == {}
    token = INCOMING.set({"traceparent": PARENT})
    try:
        with Untraced().call(command) as call:
            assert call.headers == {"traceparent": PARENT}
    finally:
        INCOMING.reset(token)
