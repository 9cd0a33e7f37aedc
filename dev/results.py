"""What comes of a prompt: its history, or an exception that names the node at fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


class WorkflowError(Exception):
    """ComfyUI refuses or fails to run a prompt. The node fields are None where the fault belongs to no single node."""

    def __init__(self, message: str, node_id: str | None = None, node_type: str | None = None, traceback: str = ""):
        where = f"{node_type} (node {node_id}): " if node_id is not None else ""
        super().__init__(where + message)
        self.node_id = node_id
        self.node_type = node_type
        self.exception_message = message
        self.traceback = traceback


class WorkflowInterrupted(WorkflowError):
    """The prompt was stopped by an interrupt."""


@dataclass(frozen=True)
class History:
    """What ComfyUI remembers about a prompt that it has run to its end."""

    prompt_id: str
    outputs: dict[str, Json]
    messages: list[tuple[str, Json]]

    @property
    def seconds(self) -> float:
        """Time from the start of execution to its end, as the server clocked it."""
        times = [data["timestamp"] for _, data in self.messages if "timestamp" in data]
        return (max(times) - min(times)) / 1000 if times else 0.0

    @property
    def cached(self) -> list[str]:
        """Ids of the nodes whose earlier results were used again."""
        return [node for name, data in self.messages if name == "execution_cached" for node in data["nodes"]]


def refusal(answer: Json, prompt: Json) -> WorkflowError:
    """The first fault that the server found while validating, as an exception."""
    for node_id, fault in answer.get("node_errors", {}).items():
        reasons = [" ".join(filter(None, [reason["message"], reason.get("details")])) for reason in fault["errors"]]
        return WorkflowError("; ".join(reasons), node_id, fault.get("class_type") or prompt[node_id]["class_type"])
    error = answer.get("error", answer)
    if not isinstance(error, dict):
        return WorkflowError(str(error))
    extra = error.get("extra_info") or {}
    text = " ".join(filter(None, [error.get("message"), error.get("details")]))
    return WorkflowError(text, extra.get("node_id"), extra.get("class_type"))


def judged(prompt_id: str, entry: Json) -> History:
    """The history of a prompt that went well; raises WorkflowError for one that did not."""
    messages = [(name, data) for name, data in entry.get("status", {}).get("messages", [])]
    for name, data in messages:
        if name == "execution_error":
            text = f"{data['exception_type']}: {data['exception_message'].strip()}"
            raise WorkflowError(text, data["node_id"], data["node_type"], "".join(data.get("traceback", [])))
        if name == "execution_interrupted":
            raise WorkflowInterrupted("interrupted", data["node_id"], data["node_type"])
    return History(prompt_id, entry.get("outputs", {}), messages)
