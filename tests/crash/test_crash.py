"""A process that is killed at any moment leaves a store that opens, with all finished items whole and nothing else."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest

from tests import disks, stores
from tests.crash import scenarios
from tests.crash.scenarios import Scenario
from tests.crash.sweep import PYTHONPATH, ROOT, Template, moments, sweep

pytestmark = [pytest.mark.root, pytest.mark.compat]
RANDOM_KILLS = 40  # for each driver


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stores.QUIET.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(operation, made)
        for made, operations in scenarios.SWEPT.items()
        for operation in operations
        if operation not in scenarios.ONLY_SOAKED.get(made, ())
    ],
    ids=lambda scenario: f"{scenario.made}-{scenario.operation}",
)
def test_killed_at_every_change(scenario: Scenario) -> None:
    with disks.scratch_for(scenarios.driver_of(scenario.made)) as folder:
        failures = sweep(Template(folder, scenario.made), scenario)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("driver", scenarios.DRIVERS)
def test_killed_at_random_moments_of_an_import(driver: str) -> None:
    with disks.scratch_for(driver) as folder:
        _kill_at_random_moments(Template(folder, driver), driver)


def _kill_at_random_moments(template: Template, driver: str) -> None:
    scenario = Scenario("import", driver)
    _, expected = moments(template, scenario, ("rename",))
    random_ = random.Random(3)
    began = time.monotonic()
    whole = template.copy("whole")
    _start(template, whole, scenario).wait()
    seconds = time.monotonic() - began
    stores.clear(whole.folder)
    for number in range(RANDOM_KILLS):
        place = template.copy(f"random-{number}")
        process = _start(template, place, scenario)
        time.sleep(random_.uniform(0.1, 1) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        scenarios.check(place, scenario, expected, go_first=number % 2 == 0)
        stores.clear(place.folder)


def _start(template: Template, place: scenarios.Place, scenario: Scenario) -> subprocess.Popen[bytes]:
    env = os.environ | {"PYTHONPATH": PYTHONPATH}
    return subprocess.Popen(template.words(place, scenario), cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
