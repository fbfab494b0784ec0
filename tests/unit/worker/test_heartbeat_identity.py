"""The news that an old id has expired must not silence the new one."""

from jobyard.worker.heartbeat import Heartbeat


def test_a_new_id_that_came_meanwhile_is_not_forgotten_with_the_old_one() -> None:
    told: list[int] = []
    heartbeat = Heartbeat("postgresql://nowhere", 30.0, told.append)
    heartbeat.beat_for(2)
    assert not heartbeat._forget(1)
    assert heartbeat._worker == 2
    assert heartbeat._forget(2)
    assert heartbeat._worker is None
    heartbeat.stop()
