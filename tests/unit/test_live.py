"""The calls that are with a model: what is seen of them, and how one is ended."""

import threading

import pytest

from hermes.errors import Cancelled
from hermes.frontend.exchange import Call
from hermes.frontend.http1 import Request
from hermes.frontend.live import Live, Picture
from hermes.frontend.principal import Principal
from hermes.frontend.queueing import sees


class Connection:
    def __init__(self) -> None:
        self.hung_up = self.cut = 0

    def hang_up(self) -> None:
        self.hung_up += 1

    def cut_off(self) -> None:
        self.cut += 1


class Pending:
    """As much of a Pending as is looked at."""

    def __init__(self, position: int = 0, queued: bool = False, model: str = "gemma3:270m"):
        self._position, self.queued, self.model = position, queued, model

    def position(self) -> tuple[int, int]:
        return self._position, 9


class Lease:
    def __init__(self, head: object = None, records: int = 0):
        self.head, self.records = head, records


def call(name: str = "ann", request_id: str = "r", pending: Pending | None = None, leases: tuple[Lease, ...] = (), **rights) -> Call:
    return Call(Request("POST", "/", "", {}), Connection(), b"a secret prompt", arrived=100.0, model="m", leases=list(leases), principal=Principal(name, **rights),
                request_id=request_id, rank=2, pending=pending)


@pytest.fixture
def live() -> Live:
    return Live(patience=0.0)


def everybody(_call: Call) -> bool:
    return True


def test_nobody_who_is_not_with_a_model_is_seen(live: Live) -> None:
    live.add("a", call())
    live.add("b", call(pending=Pending(model="")))
    assert live.pictures(101.0) == []


@pytest.mark.parametrize(("pending", "leases", "phase", "position", "tokens"), [
    (Pending(3, queued=True), (), "queued", 3, 0),
    (Pending(0, queued=True), (), "queued", 0, 0),
    (Pending(2, queued=True), (Lease(),), "queued", 2, 0),
    (Pending(0), (), "waiting", 0, 0),
    (Pending(0), (Lease(),), "waiting", 0, 0),
    (Pending(5), (Lease(),), "waiting", 0, 0),
    (Pending(0), (Lease(object(), 4), Lease()), "waiting", 0, 0),
    (Pending(0), (Lease(), Lease(object(), 7)), "streaming", 0, 7)])
def test_phases(live: Live, pending: Pending, leases: tuple[Lease, ...], phase: str, position: int, tokens: int) -> None:
    live.add("a", call(pending=pending, leases=leases))
    assert live.pictures(102.5) == [Picture("r", "ann", 2, "m", "gemma3:270m", phase, position, 2.5, tokens)]


def test_never_what_is_asked(live: Live) -> None:
    live.add("a", call(pending=Pending()))
    assert "secret" not in repr(live.pictures(101.0))


def test_who_runs_comes_first_then_who_waits_in_order_of_service(live: Live) -> None:
    for number, (position, queued) in enumerate([(2, True), (0, False), (1, True), (0, False)]):
        each = call(request_id=str(number), pending=Pending(position, queued))
        each.arrived = 100.0 - number
        live.add(number, each)
    assert [one.id for one in live.pictures(101.0)] == ["3", "1", "2", "0"]


def test_a_stranger_sees_that_somebody_is_there(live: Live) -> None:
    live.add("a", call(pending=Pending(1, queued=True)))
    seen = live.pictures(101.0)[0]
    assert seen.disguised() == seen._replace(id="", client="") and "ann" not in repr(seen.disguised())


def test_one_call_a_connection(live: Live) -> None:
    first, second = call(request_id="1", pending=Pending()), call(request_id="2", pending=Pending())
    live.add("a", first)
    live.add("a", second)
    assert live.cancel("1", everybody) == 0 and first.cancelled is None
    assert live.cancel("2", everybody) == 1 and isinstance(second.cancelled, Cancelled) and second.client.hung_up == 1


def test_only_while_it_is_live(live: Live) -> None:
    over, not_there = call(pending=Pending()), call()
    live.add("a", over)
    live.add("b", not_there)                # it has not come to a model yet: nothing would end it
    live.remove("a")
    live.remove("a")
    assert live.cancel("r", everybody) == 0
    assert (over.cancelled, over.client.hung_up, not_there.cancelled, not_there.client.hung_up) == (None, 0, None, 0)


def test_every_call_of_that_id_and_no_other(live: Live) -> None:
    calls = [call(request_id=name, pending=Pending()) for name in ("r", "R", "r", "r ", "")]
    for number, each in enumerate(calls):
        live.add(number, each)
    assert live.cancel("r", everybody) == 2 and live.cancel("none", everybody) == 0
    assert [each.client.hung_up for each in calls] == [1, 0, 1, 0, 0]


def test_only_who_does_not_end_is_cut_off() -> None:
    live, ends, stays = Live(patience=0.2), call(pending=Pending()), call(pending=Pending())
    live.add("ends", ends)
    live.add("stays", stays)
    ends.client.hang_up = lambda: threading.Thread(target=live.remove, args=("ends",)).start()
    assert live.cancel("r", everybody) == 2
    assert (ends.client.cut, stays.client.cut) == (0, 1)


def test_it_is_waited_for_no_longer_than_it_takes() -> None:
    live, ends = Live(patience=1e6), call(pending=Pending())
    live.add("ends", ends)
    ends.client.hang_up = lambda: threading.Thread(target=live.remove, args=("ends",)).start()
    assert live.cancel("r", everybody) == 1 and ends.client.cut == 0


def test_ones_own_and_with_manage_anybodys(live: Live) -> None:
    anns, bobs = call("ann", pending=Pending()), call("bob", pending=Pending())
    live.add("a", anns)
    live.add("b", bobs)
    caller, warden = call("carol"), call("dave", manage=True)
    assert live.cancel("r", lambda other: sees(caller, other.principal.name)) == 0
    assert live.cancel("r", lambda other: sees(anns, other.principal.name)) == 1 and bobs.cancelled is None
    assert live.cancel("r", lambda other: sees(warden, other.principal.name)) == 2 and bobs.cancelled is not None
