"""Close pages while threads read them and commit to them."""

import os
import sys
import threading

from vmclock_async import _core

sys.setswitchinterval(1e-6)
for _ in range(100):
    fd = os.memfd_create("page", os.MFD_CLOEXEC)
    os.ftruncate(fd, 4096)
    page = _core.Page(fd, writable=True)

    def use(page: _core.Page) -> None:
        try:
            while True:
                page.read()
                page.commit(bytes(88), None, None)
        except ValueError:
            pass

    threads = [threading.Thread(target=use, args=(page,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    page.close()
    for thread in threads:
        thread.join()
print("survived")
