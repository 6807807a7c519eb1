"""The figures of the cache benchmark by section, and the goals."""

from __future__ import annotations

from typing import Any


class Report:
    """Figures by section, and the goals."""

    def __init__(self) -> None:
        self.sections: dict[str, Any] = {}
        self.goals: list[dict[str, Any]] = []

    def goal(self, name: str, got: float, most: float) -> None:
        met = got <= most
        self.goals.append({"goal": name, "got": round(got, 3), "at most": most, "met": met})
        print(f"    goal: {name}: {got:.2f}, at most {most:g}{'' if met else '   MISSED'}")
