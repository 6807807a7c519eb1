"""What has to be renewed in a forked child: a lock that another thread held at that moment stays held for ever."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_child", "renew_lock"]


def in_child(renew: Callable[[], object]) -> None:
    """Call `renew` in every forked child from now on, in the order of registration; never where nothing forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)


def renew_lock(module: dict[str, Any], name: str) -> None:
    """Replace the module-global lock `name` in every forked child: `renew_lock(globals(), "_lock")`."""

    def renew() -> None:
        module[name] = threading.Lock()

    in_child(renew)
