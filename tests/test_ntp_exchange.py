"""One request over a real socket, and what may come back: the answer, nothing, or what somebody else sent."""

import socket
from collections.abc import Iterator
from itertools import pairwise

import anyio
import pytest

import vmclock_ntp.exchange
from kit.chronyd import free_port
from kit.ntp import NtpResponder
from kit.told_world import open_descriptors
from kit.waits import BOUND_S, settled
from vmclock_async.timebase import counter_ticks, ticks_between
from vmclock_ntp.exchange import Address, Exchange, ask, ask_blocking


@pytest.fixture
def server() -> Iterator[NtpResponder]:
    with NtpResponder(lambda ns: ns) as responder:
        yield responder


def address(server: NtpResponder) -> Address:
    return socket.AF_INET, ("127.0.0.1", server.port)


async def answered(server: NtpResponder) -> Exchange:
    with anyio.fail_after(BOUND_S):
        exchange = await ask(address(server))
    assert exchange is not None
    return exchange


def flipped(answer: bytes, *, byte: int) -> bytes:
    """*answer* with another bit in that byte."""
    return answer[:byte] + bytes([answer[byte] ^ 1]) + answer[byte + 1 :]


@pytest.mark.anyio
async def test_counter_is_read_around_the_exchange(server: NtpResponder) -> None:
    """Before the request goes, and after the answer is there; each request has another token, and another port."""
    before = counter_ticks()
    exchanges = [await answered(server) for _ in range(3)]
    after = counter_ticks()
    order = [before, *(ticks for one in exchanges for ticks in (one.sent_ticks, one.received_ticks)), after]
    assert all(ticks_between(a, b) > 0 for a, b in pairwise(order))
    tokens = {heard.packet[40:] for heard in server.heard}
    assert len(tokens) == 3
    assert {exchange.answer.origin for exchange in exchanges} == tokens
    assert {heard.packet[:40] for heard in server.heard} == {bytes([0x23, *[0] * 39])}


@pytest.mark.anyio
async def test_what_is_not_the_answer_is_dropped(server: NtpResponder) -> None:
    """Short, forged (another origin), a client's, of another version, all before the answer: the wait goes on, and
    it is the answer that comes out, however often it is sent."""
    late = (await answered(server)).answer
    server.before = (
        lambda answer: [
            b"",
            answer[:47],
            flipped(answer, byte=24),
            flipped(answer, byte=31),
            answer[:24] + late.origin + answer[32:],  # the answer to the request before
            bytes([answer[0] & ~7 | 3]) + answer[1:],
            bytes([answer[0] & ~0x38 | 5 << 3]) + answer[1:],
            answer[:24] + bytes(8) + answer[32:],
        ]
    )
    server.times = 3
    server.says["stratum"] = 7
    for _ in range(2):
        exchange = await answered(server)
        assert (exchange.answer.mode, exchange.answer.version, exchange.answer.stratum) == (4, 4, 7)
        assert exchange.answer.origin == server.heard[-1].packet[40:]


@pytest.mark.anyio
async def test_silence_and_foreign_ports_are_no_answer(
    server: NtpResponder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None, after a while: the server is silent; or the answer comes from another port than the one that was asked."""
    monkeypatch.setattr(vmclock_ntp.exchange, "ANSWERED_WITHIN_S", 0.05)
    server.is_silent = True
    assert await ask(address(server)) is None
    server.is_silent, server.from_elsewhere = False, True
    assert await ask(address(server)) is None
    assert len(server.heard) == 2


@pytest.mark.anyio
async def test_nobody_listens() -> None:
    """The kernel says so at once; a way that does not exist is an error too."""
    with anyio.fail_after(BOUND_S), pytest.raises(ConnectionRefusedError):
        await ask((socket.AF_INET, ("127.0.0.1", free_port())))
    with pytest.raises(OSError, match=r"."):
        await ask((socket.AF_INET, ("255.255.255.255", 9)))


@pytest.mark.anyio
async def test_cancelled_request_leaves_no_socket(server: NtpResponder) -> None:
    """Cancelled while it waits for the answer."""
    server.is_silent = True
    await ask_once_and_cancel(server)  # the loop opens things of its own at the first wait
    before = sockets()
    await ask_once_and_cancel(server)
    assert sockets() <= before


def sockets() -> set[str]:
    return {descriptor for descriptor in open_descriptors() if "socket" in descriptor}


async def ask_once_and_cancel(server: NtpResponder) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, address(server))
        await settled()
        tasks.cancel_scope.cancel()


def test_blocking_question_finds_those_that_give_a_time(server: NtpResponder) -> None:
    """All are asked at once; not found are the unsynchronized, the silent, the refusing, and who is not there."""
    with NtpResponder(lambda ns: ns) as other, NtpResponder(lambda ns: ns) as silent:
        other.says["leap"] = 3
        silent.is_silent = True
        server.before = lambda answer: [answer[:20], flipped(answer, byte=25)]
        nobody: Address = (socket.AF_INET, ("127.0.0.1", free_port()))
        no_way: Address = (socket.AF_INET, ("255.255.255.255", 9))
        asked = [nobody, address(silent), no_way, address(other), address(server)]
        assert ask_blocking(asked, 0.2) == [address(server)]
        assert ask_blocking([address(server)], BOUND_S) == [address(server)]
    assert ask_blocking([], BOUND_S) == []
