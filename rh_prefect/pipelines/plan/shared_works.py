"""`SharedWorks`: the works of a plan. Steps with equal requests share a work, which is made once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from rh_prefect.pipelines.plan.planned_steps import KnownWork, PlannedStep, PriceRange, State, Work
from rh_prefect.pipelines.plan.size_limits import Size
from rh_prefect.pipelines.plan.step_drafts import Draft
from rh_prefect.works.journal.identity import work_id


class SharedWorks:
    """The works of a plan, and the steps that need each of them."""

    def __init__(self) -> None:
        self._works: dict[tuple[str, str], Work] = {}  # By key and shape
        self.users: dict[str, list[PlannedStep]] = defaultdict(list)  # The steps that need a work, by its key

    def add(self, draft: Draft, take: int, known: KnownWork | None, size: Size) -> Work:
        """Returns the work of one take of a step, which other steps may already need."""
        base, scope = draft.base, draft.scope
        unsettled = f"{base}/{take}{scope and '/'}{scope}"
        key = (work_id(base, take, scope) if draft.endpoint else base) if draft.is_settled else unsettled
        shape = draft.instance.shape
        users = self.users[key]
        work = self._works.get((key, shape))
        if work is None:
            if draft.endpoint and not users:
                size.add_work(draft.instance.at, draft.instance.path)
            state = state_of(known, [draft.instance], is_settled=draft.is_settled)
            work = Work(key, draft.is_settled, take, state, known=known, shape=shape, scope=scope)
            self._works[key, shape] = work
        users.append(draft.instance)
        return work

    def outdate(self, keys: Collection[str]) -> list[PlannedStep]:
        """Removes works that have a new result; returns the steps that need them, which must be planned again."""
        users = [one for key in keys for one in self.users.get(key, ())]
        for work in (work for one in users for work in one.works if work.key in keys):
            self._works.pop((work.key, work.shape), None)
        return users

    def forget(self, old: Collection[PlannedStep]) -> None:
        """Removes steps that are planned again, and the works that no other step needs."""
        gone = set(old)
        for key in {work.key for one in old for work in one.works}:
            self.users[key] = [one for one in self.users[key] if one not in gone]
            if not self.users[key]:
                del self.users[key]
        for work in (work for one in old for work in one.works if work.key not in self.users):
            self._works.pop((work.key, work.shape), None)

    def share(self, key: str) -> bool:
        """Combines the data of a work from the steps that need it; returns whether a run acts differently now."""
        users = self.users.get(key, ())
        works = [work for one in users for work in one.works if work.key == key]
        return _share(works if len(works) == 1 else list(dict.fromkeys(works)), users)


def state_of(known: KnownWork | None, users: Iterable[PlannedStep], *, is_settled: bool) -> State:
    """Returns the state of a work, from its records and from the steps that need it."""
    if known is not None and known.state != "+":
        return known.state
    if all(any(need.found == "r" for need in (*one.waits_for, *one.needs)) for one in users):
        return "r"
    return "+" if is_settled else ">"


def _share(works: Sequence[Work], users: Sequence[PlannedStep]) -> bool:
    """Combines the data of all steps that need a work, any of which may submit it; returns whether the data changed."""
    price, attempts = (users[0].price, users[0].attempts) if users else (PriceRange(), 1)
    if len(users) > 1:
        attempts = max(one.attempts for one in users)
        price = PriceRange(
            min(one.price.least for one in users),
            max(one.price.expected for one in users),
            max(one.price.most / one.attempts for one in users) * attempts,
            any(one.price.is_open for one in users),
        )
    is_other = False
    for work in works:
        work.is_spare = False
        own = [one for one in users if work in one.works]
        before = work.price, work.attempts, work.is_needed, work.state
        work.price, work.attempts = price, attempts
        work.is_sure, work.is_needed = any(one.is_sure for one in own), any(one.is_needed for one in own)
        work.state = state_of(work.known, own, is_settled=work.is_settled)
        is_other |= before != (work.price, work.attempts, work.is_needed, work.state)
    return is_other
