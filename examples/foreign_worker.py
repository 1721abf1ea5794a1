"""A worker in any language: HTTP and JSON, nothing of this package. Read it next to http://127.0.0.1:7350/docs.

In two terminals, here:

    orchestrator dev http_worker     # the engine, with a workflow that needs the queue "measuring"
    python foreign_worker.py         # serves it, one attempt at a time, until Ctrl-C
"""

import base64
import json
import os
import sys
import threading
import urllib.request
import uuid

ADDRESS = os.environ.get("ORCHESTRATOR_ADDRESS", "http://127.0.0.1:7350") + "/api/v1"
WORKER = uuid.uuid4().hex  # one life of this worker; after a 404 it would take a new name
ME = f"/workers/{WORKER}"


def call(method: str, path: str, body: object = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(ADDRESS + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"{}")


def beat_every_second(inbox: dict, stop: threading.Event) -> None:
    """Six seconds of silence, and what runs here is given to others."""
    number = 0
    while not stop.wait(1.0 if number else 0.0):
        number += 1
        beat = {"beat": "WorkerBeat", "worker": WORKER, "identity": "foreign", "task_queues": ["measuring"]}
        beat |= {"slots": 1, "running": 0, "number": number}
        beat |= {"inbox": inbox["partition"], "inbox_offset": inbox["offset"]}
        call("POST", f"{ME}/beats", beat)


def measure(room: str) -> str:
    return f"{room}: 70 °F, measured in another language"


def run(task: dict) -> None:
    room = json.loads(base64.b64decode(task["input"][0]["data"]))
    names = ("workflow_id", "run_id", "activity_id", "attempt", "dispatch", "worker")
    report = {name: task[name] for name in names} | {"command": "CompleteActivity", "identity": "foreign"}
    report["result"] = {"data": base64.b64encode(json.dumps(measure(room)).encode()).decode()}
    call("POST", "/commands", [report])


def main() -> None:
    inbox, after, stop = call("PUT", ME), 0, threading.Event()
    threading.Thread(target=beat_every_second, args=(inbox, stop), daemon=True).start()
    print("serving the queue 'measuring'", flush=True)
    try:
        while True:
            batch = call("GET", f"{ME}/tasks?after={after}&wait_s=10")
            after, inbox["offset"] = batch["number"], batch["offset"]
            for task, _append_time_ms in batch["messages"]:
                if task["task"] == "ActivityTask":  # else a CancelTask: nothing here takes long
                    run(task)
    except KeyboardInterrupt:
        stop.set()
        call("DELETE", ME)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"no answer from {ADDRESS}: {error}")
