"""Tests of ``paraglider.daemon.stats.carried``: sums since the daemon's start that only grow."""

from __future__ import annotations

from paraglider.config.model import Config
from paraglider.daemon.messages import CarrierReading, SlotCount
from paraglider.daemon.stats.carried import CarriedCounters
from paraglider.forward.bpf.slot_names import slot_names


def config(*backends: str) -> Config:
    """A service with these backends, and one that conntrack carries."""
    common = {"vip": "192.0.2.1/24", "protocol": "tcp"}
    services = (
        {**common, "name": "web", "ports": 80, "carrier": "bpf", "backends": list(backends)},
        {**common, "name": "off", "ports": 81, "forward": "offload", "backends": ["10.0.0.9"]},
    )
    return Config.model_validate({"services": services})


BOTH = config("10.0.0.1", "10.0.0.2")
SLOTS = {backend: name.hex() for name, (_, backend) in slot_names(BOTH).items()}


def reading(**counts: tuple[int, int, int, int]) -> CarrierReading:
    """A reading with the counts of these backends, by the ends of their addresses."""
    slots = {SLOTS[f"10.0.0.{name[1:]}"]: SlotCount(*four) for name, four in counts.items()}
    return CarrierReading(slots=slots)


def test_sums_start_with_the_daemon() -> None:
    """What the maps counted before is not its own; ``in`` goes to the backend."""
    counters = CarriedCounters(BOTH, reading(b1=(10, 1000, 5, 500)))
    counters.update(reading(b1=(11, 1100, 7, 900), b2=(1, 60, 1, 40)))
    assert counters.backend(("web", "10.0.0.1")) == {
        "packets_in": 1,
        "bytes_in": 100,
        "packets_out": 2,
        "bytes_out": 400,
    }
    assert counters.service("web") == {
        "packets_in": 2,
        "bytes_in": 160,
        "packets_out": 3,
        "bytes_out": 440,
    }


def test_other_maps_count_from_zero() -> None:
    """A program of another layout has new maps: no sum goes down, and none grows twice."""
    counters = CarriedCounters(BOTH, CarrierReading())
    for each in ((10, 1000, 0, 0), (4, 400, 0, 0), (5, 500, 0, 0)):
        counters.update(reading(b1=each))
    assert counters.backend(("web", "10.0.0.1"))["packets_in"] == 15


def test_a_slot_that_was_not_read_keeps_its_count() -> None:
    """A reading may lack one, or all of them."""
    counters = CarriedCounters(BOTH, CarrierReading())
    for each in (reading(b1=(10, 1000, 0, 0)), CarrierReading(), reading(b1=(11, 1100, 0, 0))):
        counters.update(each)
    assert counters.backend(("web", "10.0.0.1"))["bytes_in"] == 1100


def test_a_removed_backend_counts_for_its_service() -> None:
    """And a new one begins, with what is counted from then on."""
    counters = CarriedCounters(BOTH, CarrierReading())
    counters.update(reading(b1=(10, 1000, 0, 0)))
    counters.apply_config(config("10.0.0.2"))
    counters.update(reading(b1=(90, 9000, 0, 0), b2=(1, 100, 0, 0)))
    assert counters.backend(("web", "10.0.0.1")) == {}
    assert counters.service("web")["packets_in"] == 11
    counters.apply_config(BOTH)
    counters.update(reading(b1=(91, 9100, 0, 0)))
    assert counters.backend(("web", "10.0.0.1"))["packets_in"] == 1


def test_methods_without_such_a_carrier_have_no_counters() -> None:
    """Their packets are counted elsewhere."""
    counters = CarriedCounters(BOTH, CarrierReading())
    assert counters.backend(("off", "10.0.0.9")) == counters.service("off") == {}
