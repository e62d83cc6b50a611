"""Messages from many tasks to one: each is taken once, in order, or stays its sender's; on each event loop."""

from contextlib import suppress

import anyio
import pytest

from vmclock_async._publishing.handover import Handover

pytestmark = pytest.mark.anyio


async def test_messages_are_taken_in_order_and_waited_for() -> None:
    """A sender goes on only when its message is taken, so that there is never more than one of it."""
    handover = Handover[int](1)
    sent: list[int] = []

    async def send() -> None:
        for number in range(5):
            await handover.send(number)
            sent.append(number)
        handover.sender_is_done()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            for number in range(5):
                await anyio.wait_all_tasks_blocked()
                assert sent == list(range(number))
                assert await handover.receive() == number
            with pytest.raises(anyio.EndOfStream):
                await handover.receive()


async def test_end_comes_when_every_sender_is_done() -> None:
    """What one sender says last is taken, also after another was done, and then there is an end."""
    handover = Handover[str](2)
    received: list[str] = []

    async def receive() -> None:
        with suppress(anyio.EndOfStream):
            while True:
                received.append(await handover.receive())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            handover.sender_is_done()
            await anyio.wait_all_tasks_blocked()
            await handover.send("last")
            handover.sender_is_done()
    assert received == ["last"]


async def test_message_of_cancelled_sender_is_not_taken() -> None:
    """A sender that is cancelled while it waits keeps its message; the others' are taken."""
    handover = Handover[str](2)

    async def give_up() -> None:
        with anyio.move_on_after(0.01):
            await handover.send("withdrawn")
            raise AssertionError("sent")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            await give_up()
            tasks.start_soon(handover.send, "sent")
            await anyio.wait_all_tasks_blocked()
            assert await handover.receive() == "sent"
            tasks.start_soon(give_up)
            with anyio.move_on_after(0.1) as waiting:
                await anyio.sleep(0.05)
                await handover.receive()
            assert waiting.cancelled_caught


async def test_cancelled_receiver_leaves_messages() -> None:
    """A receiver that was cancelled while it waited has taken nothing; the next one gets what is sent."""
    handover = Handover[int](1)
    with anyio.fail_after(5):
        for number in range(20):
            async with anyio.create_task_group() as tasks:
                with anyio.move_on_after(0):
                    await handover.receive()
                    raise AssertionError("received")
                tasks.start_soon(handover.send, number)
                assert await handover.receive() == number


async def test_closed_handover_refuses_what_waits_and_what_comes() -> None:
    """Nobody waits for ever for a receiver that has gone."""
    handover = Handover[int](2)
    refused: list[int] = []

    async def send(number: int) -> None:
        with pytest.raises(anyio.BrokenResourceError):
            await handover.send(number)
        refused.append(number)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, 1)
            await anyio.wait_all_tasks_blocked()
            handover.close()
        await send(2)
    assert refused == [1, 2]


async def test_sending_is_a_checkpoint_also_when_somebody_waits_for_it() -> None:
    """A cancelled task stops at its next send, and other tasks run in between."""
    handover = Handover[int](1)
    received: list[int] = []

    async def receive() -> None:
        while True:
            received.append(await handover.receive())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            with anyio.CancelScope() as scope:
                scope.cancel()
                await handover.send(1)
                raise AssertionError("sent")
            await handover.send(2)
            tasks.cancel_scope.cancel()
    assert received[-1] == 2
