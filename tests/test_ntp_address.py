"""How users name servers, which names smear, and the settings that have them."""

import socket

import pytest
from pydantic import ValidationError

from vmclock_ntp import NtpSettings
from vmclock_ntp.address import LINK_LOCAL, ServerName


@pytest.mark.parametrize(
    ("text", "host", "port", "again"),
    [
        ("ntp.example.org", "ntp.example.org", 123, "ntp.example.org"),
        (" ntp.example.org:1123 ", "ntp.example.org", 1123, "ntp.example.org:1123"),
        ("192.0.2.1:123", "192.0.2.1", 123, "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1", 123, "2001:db8::1"),
        ("[2001:DB8::1]", "2001:db8::1", 123, "2001:db8::1"),
        ("[2001:db8::1]:65535", "2001:db8::1", 65535, "[2001:db8::1]:65535"),
    ],
)
def test_names_are_read(text: str, host: str, port: int, again: str) -> None:
    """With and without a port; written out they are read as the same."""
    name = ServerName.parse(text)
    assert (name.host, name.port, str(name)) == (host, port, again)
    assert ServerName.parse(again) == name


@pytest.mark.parametrize(
    "text", ["", "a b", "host:", "host:0", "host:65536", "[host]", "[::1", "http://host", ":123"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """With the forms that there are."""
    with pytest.raises(ValueError, match=r"is no server: write host, host:port, or \[IPv6 address\]:port"):
        ServerName.parse(text)


def test_settings_take_a_list_and_text() -> None:
    """An array of the file, and what commas divide on the command line; none, up to eight, each once."""
    assert NtpSettings(servers=["a", "[::1]:9"]).servers == ("a", "[::1]:9")
    assert NtpSettings.model_validate({"servers": "a, b:9,"}).servers == ("a", "b:9")
    assert NtpSettings.model_validate({"servers": ""}).names == LINK_LOCAL == NtpSettings().names
    for wrong, why in (
        ("a,a:123", "more than once"),
        ("time.example,Time.Example", "Time.Example, time.example is named more than once"),
        (",".join("abcdefghi"), "at most 8"),
        ("a,b c", "no server"),
    ):
        with pytest.raises(ValidationError, match=why):
            NtpSettings.model_validate({"servers": wrong})


def test_smearing_is_known_of_those_who_say_so() -> None:
    """The clouds' own servers and the public ones of Amazon, Google and Meta; the setting overrules that."""
    assert NtpSettings().may_smear
    smearing = (
        "169.254.169.123",
        "fd00:ec2::123",
        "metadata.google.internal",
        "time.google.com",
        "time3.google.com",
    )
    public = ("time.aws.com", "TIME.AWS.COM", "time.google.com.", "216.239.35.8", "time5.facebook.com")
    for name in (*smearing, *public):
        assert NtpSettings(servers=("ntp.example.org", name)).may_smear, name
        assert not NtpSettings(servers=(name,), smeared=False).may_smear
    for name in ("ntp.example.org", "xtime.google.com", "time.google.com.example.org"):
        assert not NtpSettings(servers=(name,)).may_smear, name
        assert NtpSettings(servers=(name,), smeared=True).may_smear


def test_names_are_resolved() -> None:
    """By the system's resolver, which refuses what is no name with an OSError too."""
    assert (socket.AF_INET, ("127.0.0.1", 9)) in ServerName.parse("localhost:9").resolve()
    for name in ("a..b", "a" * 64):
        with pytest.raises(OSError, match=r"[Nn]ame"):
            ServerName.parse(name).resolve()
