"""Checks groups and fan-outs: their lists, their items, and references to the previous item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rh_prefect import catalog
from rh_prefect.errors import UnknownModelError
from rh_prefect.pipelines.check.literals import is_reference, kind_of
from rh_prefect.pipelines.check.other_steps import OtherCheck
from rh_prefect.pipelines.document import Path, nearest
from rh_prefect.pipelines.edits import EDITS
from rh_prefect.pipelines.file_model import Step, shown_value
from rh_prefect.pipelines.parsed_answers import answer_type
from rh_prefect.pipelines.types import FILES, Type
from rh_prefect.pipelines.visible_names import Scope


class GroupCheck(OtherCheck):
    """Checks groups of steps."""

    def _steps(self, steps: Mapping[str, Step], path: Path, outer: Scope) -> Scope:
        raise NotImplementedError

    def _group(self, path: Path, step: Step, scope: Scope) -> Type:
        inner = Scope(outer=scope)
        fields: dict[str, Type] = {}
        if step.matrix is not None:
            inner.names["matrix"] = self._matrix(path, step, scope)
        if step.foreach is not None:
            item = self._foreach(path, step, scope)
            fields["item"] = item
            inner.names |= {"item": item, "number": Type("integer")}
            if step.as_ is not None:
                is_right = self._check_name((*path, "as"), step.as_, scope, key=False)
                inner.names[step.as_] = item if is_right else Type("any")
        if step.is_fan_out:
            self._items(path, step, inner)
            fields["id"] = inner.names["id"] = Type("string")
            inner.names["previous"] = self._previous(path, step, inner)
        steps = step.steps or {}
        if not steps:
            self._say((*path, "steps"), "a group must have at least one step")
            return Type("any")
        last = self._steps(steps, (*path, "steps"), inner)
        fields |= {name: last.names[name] for name in steps}
        if not step.is_fan_out:
            return Type("group", fields=fields)
        return Type("group", many=True, fields=fields)

    def _foreach(self, path: Path, step: Step, scope: Scope) -> Type:
        at = (*path, "foreach")
        if isinstance(step.foreach, str) and not is_reference(step.foreach):
            self._say(at, f"foreach takes a list, and {shown_value(step.foreach)}; did you mean $({step.foreach})?")
            return Type("any")
        found = self._value(at, step.foreach, scope)
        if found is None or found.kind == "any":
            return Type("any")
        if not found.many:
            self._say(at, f"foreach takes a list, and {step.foreach} is {found.words}")
            return Type("any")
        return found.one

    def _items(self, path: Path, step: Step, inner: Scope) -> None:
        if step.where is not None:
            held = self._condition((*path, "where"), step.where, inner)
            inner.guards |= held
        if step.sort is not None:
            columns = inner.names.get("item", Type("any")).known_fields()
            if columns and step.sort.by not in columns:
                where = (*path, "sort", "by") if self._document.node((*path, "sort")).keys else (*path, "sort")
                self._say(where, f"an item has no {step.sort.by}; {nearest(step.sort.by, columns)}")
        self._whole((*path, "limit"), step.limit, inner)
        if step.id is not None:
            self._value((*path, "id"), step.id, inner)

    def _matrix(self, path: Path, step: Step, scope: Scope) -> Type:
        fields = {}
        for name, values in (step.matrix or {}).items():
            at = (*path, "matrix", name)
            found = self._value(at, values, scope)
            if found is not None and not found.many and found.kind != "any":
                self._say(at, f"matrix takes lists, and {name} is {found.words}")
                found = None
            fields[name] = found.one if found is not None else Type("any")
        return Type("object", fields=fields)

    def _previous(self, path: Path, step: Step, inner: Scope) -> Type:
        guard = f"exists:previous@{path}"
        self._why[guard] = "the first item has no item before it"
        ahead = Scope(outer=inner)
        for name, one in (step.steps or {}).items():
            ahead.names[name] = self._ahead(one, ahead)
        return Type("object", fields=ahead.names, guards=frozenset([guard]))

    def _ahead(self, step: Step, scope: Scope) -> Type:
        """Returns the type of a step's output before the step is checked."""
        match step.action:
            case "model":
                try:
                    kind = kind_of(catalog.get(str(step.model)).output)
                except UnknownModelError:
                    kind = "any"
                if step.parse is None or kind not in ("string", "any"):
                    return Type(kind if step.parse is None else "any", is_result=True)
                return replace(answer_type(step.parse)[0], is_result=True)
            case "workflow" | "app" | "graph":
                claimed = step.assume.kind if step.assume is not None else None
                return Type(kind_of(claimed), is_result=True) if claimed else Type("any")
            case "edit" if str(step.edit) in EDITS:
                output = EDITS[str(step.edit)].output
                first = next(iter(step.with_.values()), None)
                kind = self._silent_kind(first, scope) if output == "same" else output
                return Type(kind if output != "same" or kind in FILES else "any", is_result=True)
            case "review" if isinstance(step.review, str):
                return Type(self._silent_kind(step.review, scope) or "any", is_result=True)
            case _:
                return Type("any")
