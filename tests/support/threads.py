"""Threads that begin at the same moment."""

import threading


def together(number, work):
    """Run *work* in threads that begin at the same moment; raise the first error of any."""
    barrier = threading.Barrier(number)
    errors = []

    def run(index):
        barrier.wait()
        try:
            work(index)
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
