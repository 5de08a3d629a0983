"""Scenarios that kill, stop and continue workers and zygotes while calls are in flight."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs
import processes
import treadle
from load import AwaitedLoad, Load, Tally, Wrong


class Attacker:
    """A thread that attacks until a number of attacks has been made.

    Args:
        attack: makes one attack; returns how many processes it hit.
        target: attacks to make.
        pause_s: the longest pause between two of them; each is drawn anew.
        progress: counts what the pool has done. No more than three attacks in a row without progress: a pool whose workers only ever
            die is broken on purpose.
        afterwards: called once when the last attack was made.
    """

    def __init__(
        self,
        attack: Callable[[random.Random], int],
        target: int,
        seed: int,
        pause_s: float,
        progress: Callable[[], int],
        afterwards: Callable[[], object] = lambda: None,
    ) -> None:
        self._attack = attack
        self._progress = progress
        self._afterwards = afterwards
        self._target = target
        self._random = random.Random(seed)
        self._pause_s = pause_s
        self._stop = threading.Event()
        self.made = 0
        self._thread = threading.Thread(target=self._run, name="attacker", daemon=True)

    def _run(self) -> None:
        seen, idle = -1, 0
        while self.made < self._target and not self._stop.is_set():
            now = self._progress()
            idle = 0 if now != seen else idle + 1
            seen = now
            if idle < 3:
                self.made += self._attack(self._random)
            self._stop.wait(self._random.random() * self._pause_s)
        self._afterwards()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def __enter__(self) -> Attacker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _kill_one(chance: random.Random) -> int:
    alive = processes.workers()
    return int(bool(alive) and processes.send(chance.choice(alive), signal.SIGKILL))


def _kill_all(_: random.Random) -> int:
    return sum(processes.send(pid, signal.SIGKILL) for pid in processes.workers())


def _kill_zygote(chance: random.Random) -> int:
    alive = processes.zygotes()
    return int(
        bool(alive) and processes.send(chance.choice(alive), signal.SIGKILL, parent=os.getpid())
    )


def _stop_and_go(chance: random.Random) -> int:
    """Stops some processes, continues others; every stopped one is continued by the caller in the end."""
    alive = processes.workers()
    for pid in alive:
        roll = chance.random()
        if roll < 0.4:
            processes.send(pid, signal.SIGSTOP)
        elif roll < 0.9:
            processes.send(pid, signal.SIGCONT)
        elif roll < 0.93:
            processes.send(pid, signal.SIGKILL)
    return 1


def _continue_all() -> None:
    for pid in processes.workers():
        processes.send(pid, signal.SIGCONT)


def _under(
    attack: Callable[[random.Random], int],
    count: int,
    seed: int,
    folder: Path,
    *,
    workers: int,
    pause_s: float,
    big: bool = True,
    load_of: type[Load] = Load,
    **options: Any,
) -> tuple[int, Tally]:
    with treadle.Executor(processes=workers, **options) as pool:
        load = load_of(pool, seed, folder, big=big)
        with Attacker(attack, count, seed + 1, pause_s, lambda: pool.stats().completed) as attacker:
            while not attacker.over:
                load.round()
        load.finish()
        tally, made = load.tally, attacker.made
        last = processes.workers()
    left = processes.wait_until_gone(last)
    if left:
        raise Wrong(f"workers {left} live on after shutdown")
    return made, tally


def single_kills(count: int, seed: int, folder: Path) -> str:
    """One worker at a time, under the mixed load."""
    made, tally = _under(_kill_one, count, seed, folder, workers=4, pause_s=0.02)
    if tally.died > made:
        raise Wrong(f"{made} kills cost {tally.died} calls: more than one each")
    return f"{made} kills, {tally}"


def fast_kills(count: int, seed: int, folder: Path) -> str:
    """The same without big payloads and with hardly a pause: the kills hit the protocol's steps more often."""
    made, tally = _under(_kill_one, count, seed, folder, workers=3, pause_s=0.004, big=False)
    if tally.died > made:
        raise Wrong(f"{made} kills cost {tally.died} calls: more than one each")
    return f"{made} kills, {tally}"


def turnover(count: int, seed: int, folder: Path) -> str:
    """Kills among workers that leave by plan after a few tasks, so that deaths meet departures and starts."""
    made, tally = _under(
        _kill_one, count, seed, folder, workers=3, pause_s=0.02, max_tasks_per_child=7
    )
    if tally.died > made:
        raise Wrong(f"{made} kills cost {tally.died} calls: more than one each")
    return f"{made} kills, {tally}"


def spawned(count: int, seed: int, folder: Path) -> str:
    """Kills of workers that are interpreters of their own."""
    made, tally = _under(
        _kill_one, count, seed, folder, workers=2, pause_s=0.2, big=False, mp_context="spawn"
    )
    if tally.died > made:
        raise Wrong(f"{made} kills cost {tally.died} calls: more than one each")
    return f"{made} kills, {tally}"


def all_at_once(count: int, seed: int, folder: Path) -> str:
    """Every worker in one blow."""
    made, tally = _under(_kill_all, count, seed, folder, workers=3, pause_s=0.08)
    if tally.died > made:
        raise Wrong(f"{made} kills cost {tally.died} calls: more than one each")
    return f"{made} kills, {tally}"


def zygotes(count: int, seed: int, folder: Path) -> str:
    """The zygote, and with it every worker."""
    made, tally = _under(_kill_zygote, count, seed, folder, workers=2, pause_s=0.25)
    if tally.died > 2 * made:
        raise Wrong(f"{made} zygotes cost {tally.died} calls: more than one for each worker")
    return f"{made} zygotes killed, {tally}"


def stops(count: int, seed: int, folder: Path) -> str:
    """SIGSTOP and SIGCONT at random, a few kills among them."""
    with treadle.Executor(processes=3) as pool:
        load = Load(pool, seed, folder, big=False)
        turns = itertools.count()
        with Attacker(
            _stop_and_go, count, seed + 1, 0.01, lambda: next(turns), _continue_all
        ) as attacker:
            while not attacker.over:
                load.round()
        load.finish()
    return f"{attacker.made} storms, {load.tally}"


def threaded(count: int, seed: int, folder: Path) -> str:
    """Kills of workers that run several threads each: a kill costs up to as many calls."""
    made, tally = _under(_kill_one, count, seed, folder, workers=3, threads=4, pause_s=0.02)
    if tally.died > 4 * made:
        raise Wrong(f"{made} kills cost {tally.died} calls: more than four each")
    return f"{made} kills, {tally}"


def looped(count: int, seed: int, folder: Path) -> str:
    """Kills of workers that run coroutines."""
    made, tally = _under(
        _kill_one,
        count,
        seed,
        folder,
        workers=3,
        coroutines=6,
        pause_s=0.02,
        load_of=AwaitedLoad,
    )
    if tally.died > 6 * made:
        raise Wrong(f"{made} kills cost {tally.died} calls: more than six each")
    return f"{made} kills, {tally}"


def restart_storm(count: int, seed: int, folder: Path) -> str:
    """A function that always ends its worker: each call fails by itself, then the pool breaks clearly and never hangs."""
    broken = 0
    for turn in range(count):
        with treadle.Executor(processes=2) as pool:
            calls = []
            try:
                calls = [pool.submit(jobs.ended, 3) for _ in range(100)]
            except treadle.PoolBroken:
                pass
            errors = [call.exception(timeout=60) for call in calls]
        strange = [
            error
            for error in errors
            if not isinstance(error, (treadle.WorkerDied, treadle.PoolBroken))
        ]
        if strange:
            raise Wrong(f"storm {turn} ended calls with {strange[0]!r}")
        broken += any(isinstance(error, treadle.PoolBroken) for error in errors)
    if broken != count:
        raise Wrong(f"{count - broken} of {count} storms did not end in a broken pool")
    return f"{count} storms, each ended in PoolBroken"
