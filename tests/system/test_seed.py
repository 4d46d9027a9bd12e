"""The seed of a machine."""

from __future__ import annotations

from pathlib import Path

from paraglider.system.seed import steering_seed


def test_the_seed_is_stable_and_differs_by_machine(tmp_path: Path) -> None:
    """Two runs agree, two machines do not, and a machine without an id has one as well."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    other.write_text("3d1219c7c4c5404aaa1f6d2a48adfda5\n")
    assert steering_seed(one) == steering_seed(one)
    assert steering_seed(one) != steering_seed(other)
    assert 0 <= steering_seed(tmp_path / "none") < 1 << 32
