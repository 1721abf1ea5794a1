"""Imports users' modules and finds what they define."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from orchestrator.activity import definition as activity
from orchestrator.errors import ConfigError, DefinitionError, ModuleLoadError
from orchestrator.workflow import definition as workflow
from orchestrator.workflow import determinism

_OURS = Path(__file__).parent.parent
"""What is wrong with a module is wrong in the module, even where code in this folder finds out."""


class Loaded(NamedTuple):
    """What modules define, by name."""

    workflows: dict[str, workflow.WorkflowDefinition]
    activities: dict[str, activity.ActivityDefinition]


def load(names: Sequence[str], *, runs_workflows: bool = True) -> Loaded:
    """Import modules, of the current directory before all others, and find workflows and activities.

    Args:
        names: of the modules.
        runs_workflows: plain Python is made deterministic in their code, which all other code of the process
            pays for with each look at a clock. Processes that only run activities need it not.

    Raises:
        ModuleLoadError: a module does not import.
        DefinitionError: something is declared wrongly, or two have the same name.
        ConfigError: there is nothing to run in them.
    """
    sys.path.insert(0, str(Path.cwd()))
    if runs_workflows:
        determinism.install()
    loaded = Loaded({}, {})
    for name in names:
        module = _import(name)
        determinism.adopt(module)
        for found in workflow.find_definitions(module):
            known = loaded.workflows.setdefault(found.name, found)
            if known.cls is not found.cls:
                raise DefinitionError(
                    f"two workflows are named {found.name!r}: {_place(known.cls)} and {_place(found.cls)}; "
                    "give one of them another name="
                )
        for definition in activity.find_definitions(module):
            loaded.activities[definition.name] = activity.by_name(
                [definition, *filter(None, [loaded.activities.get(definition.name)])]
            )[definition.name]
    if not loaded.workflows and not loaded.activities:
        raise ConfigError(
            f"there is no workflow and no activity in {', '.join(names)}; decorate classes with "
            "@workflow.defn and functions with @activity.defn"
        )
    return loaded


def _import(name: str) -> ModuleType:
    module_name = ".".join(Path(name.removesuffix(".py")).parts)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name == module_name:
            raise ModuleLoadError(
                f"there is no module {module_name!r} in {Path.cwd()} or on the Python path"
            ) from error
        raise ModuleLoadError(_why(module_name, error)) from error
    except (Exception, SystemExit) as error:
        raise ModuleLoadError(_why(module_name, error)) from error


def _why(module_name: str, error: BaseException) -> str:
    text = f"module {module_name!r} does not import: {type(error).__name__}: {error}"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename
    ]
    theirs = [frame for frame in frames if not Path(frame.filename).is_relative_to(_OURS)]
    return f"{text} ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else text


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
