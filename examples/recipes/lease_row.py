"""A lease that is a row of an SQL database: of all machines that share it, at most one holds it at any time."""

import sqlite3

from vmclock_async import Clock

SCHEMA = "CREATE TABLE IF NOT EXISTS lease (name TEXT PRIMARY KEY, holder TEXT, until_ns INTEGER, token INTEGER)"

TAKE = """
    INSERT INTO lease VALUES (:name, :holder, :until_ns, 1)
    ON CONFLICT (name) DO UPDATE
        SET token = token + (holder <> :holder), holder = :holder, until_ns = :until_ns
        WHERE holder = :holder OR until_ns < :earliest_ns
    RETURNING token
"""


def acquire(database: sqlite3.Connection, clock: Clock, name: str, seconds: int) -> int | None:
    """Take or renew the lease for *seconds*; return its fencing token, or None while another holds it, or may."""
    holder, now = str(clock.incarnation), clock.now()
    row = {
        "name": name,
        "holder": holder,  # not the host's name: a clone has the same one
        "until_ns": now.latest_ns + seconds * 10**9,
        "earliest_ns": now.earliest_ns,  # another's lease is over only where all clocks agree that it is
    }
    with database:
        taken = database.execute(TAKE, row).fetchone()
    return taken and int(taken[0])


def is_held(database: sqlite3.Connection, clock: Clock, name: str) -> bool:
    """Whether this incarnation holds the lease, by every clock whose bound holds."""
    found = database.execute("SELECT holder, until_ns FROM lease WHERE name = ?", [name]).fetchone()
    return found is not None and found[0] == str(clock.incarnation) and clock.now().latest_ns < found[1]
