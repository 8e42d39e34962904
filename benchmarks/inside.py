"""What is measured in one process: `python inside.py GRAPH-ROOT RUN-ROOT TASK WORD...` prints wall and CPU seconds.

The clock starts before the store is opened, when the package's top has been imported.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from layerhold import Store


def main() -> None:
    """Do one task."""
    graphroot, runroot, task, *words = sys.argv[1:]
    wall, cpu = time.perf_counter(), time.process_time()
    store = Store.open(graphroot=graphroot, runroot=runroot, driver="overlay")
    TASKS[task](store, *words)
    print(time.perf_counter() - wall, time.process_time() - cpu)


def create(store: Store, count: str) -> None:
    """Make empty layers, one by one."""
    for number in range(int(count)):
        store.layers.create(id=f"{number:064x}")


def delete(store: Store, count: str) -> None:
    """Delete them, one by one."""
    for number in range(int(count)):
        store.layers[f"{number:064x}"].delete()


def create_batch(store: Store, count: str) -> None:
    """Make empty layers, all at once."""
    with store.writing() as edit:
        create(edit, count)


def delete_batch(store: Store, count: str) -> None:
    """Delete layers, all at once."""
    with store.writing() as edit:
        delete(edit, count)


def mount(store: Store, ref: str, times: str) -> None:
    """Mount and unmount a layer, again and again."""
    layer = store.layers[ref]
    for _ in range(int(times)):
        layer.mount()
        layer.unmount()


def listing(store: Store) -> None:
    """List the layers with what each has to say."""
    assert [(layer.id, layer.names, layer.parent_id) for layer in store.layers]


def one_by_one(store: Store, *tars: str) -> None:
    """Bring in layers one after another."""
    _on_two_processors()
    for tar in tars:
        _bring_in(store, tar)


def at_once(store: Store, *tars: str) -> None:
    """Bring in layers by a thread for each."""
    _on_two_processors()
    with ThreadPoolExecutor(len(tars)) as threads:
        for _ in threads.map(lambda tar: _bring_in(store, tar), tars):
            pass


def _bring_in(store: Store, tar: str) -> None:
    with open(tar, "rb") as stream:
        store.layers.create(diff=stream)


def _on_two_processors() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


TASKS = {
    function.__name__: function
    for function in (create, delete, create_batch, delete_batch, mount, listing, one_by_one, at_once)
}

if __name__ == "__main__":
    main()
