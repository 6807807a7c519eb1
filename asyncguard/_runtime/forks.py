"""What has to be renewed in a forked child: a lock that another thread held at that moment stays held for ever."""

from __future__ import annotations

import os
import threading
from typing import Any


def renew_lock(module: dict[str, Any], name: str) -> None:
    """Replace the module-global lock `name` in every forked child: `renew_lock(globals(), "_lock")`."""

    def renew() -> None:
        module[name] = threading.Lock()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
