import pytest

from fleet.urls import is_loopback


@pytest.mark.parametrize("url", ["http://127.0.0.1:80/x", "http://127.46.1.9", "http://[::1]:9", "https://localhost"])
def test_this_machine(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize("url", ["http://10.0.0.1", "https://127.0.0.1.example.org", "https://localhost.example.org"])
def test_elsewhere(url: str) -> None:
    assert not is_loopback(url)
