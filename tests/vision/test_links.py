"""Links: what is fetched, what is refused, and that a slow, lying or endless server costs little."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import encoded, quarters

from facedex.errors import FacedexError, PhotoLinkRefused, PhotoTooLarge, PhotoUnavailable, PhotoUnreadable
from facedex.vision import links
from facedex.vision.images import Limits, load_photo
from facedex.vision.links import Fetcher, is_public, masked

PHOTO = encoded(quarters())
LOCAL = Fetcher(private_addresses=True, timeout=2.0, deadline=3.0)
MOST = 1 << 20


class Site(BaseHTTPRequestHandler):
    """What each path answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        name = self.path.split("?")[0].strip("/").replace("-", "_")
        with contextlib.suppress(OSError):
            getattr(self, f"answer_{name}", self.answer_missing)()

    def send(self, status=200, body=b"", **headers):
        self.send_response(status)
        for name, value in {"content_length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def answer_ann_png(self):
        self.send(body=PHOTO)

    answer_b_e5_90_8d = answer_ann_png

    def answer_missing(self):
        self.send(404, b"nobody here")

    def answer_moved(self):
        self.send(302, location="/ann_png")

    def answer_circle(self):
        self.send(302, location="/circle")

    def answer_nowhere(self):
        self.send(302)

    def answer_to_metadata(self):
        self.send(302, location="http://169.254.169.254/latest/meta-data")

    def answer_to_file(self):
        self.send(302, location="file:///etc/passwd")

    def answer_to_password(self):
        self.send(302, location="http://bob:secret@127.0.0.1/ann_png")

    def answer_announces_much(self):
        self.send(content_length=1 << 40)

    def answer_endless(self):
        self.close_connection = True
        self.send(content_length=None)
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 16))
                self.server.sent += 1 << 16

    def answer_chunks(self):
        self.send(content_length=None, transfer_encoding="chunked")
        for start in range(0, len(PHOTO), 50):
            piece = PHOTO[start : start + 50]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def answer_breaks_off(self):
        self.close_connection = True
        self.send(body=PHOTO[:20], content_length=len(PHOTO))

    def answer_chunks_break_off(self):
        self.close_connection = True
        self.send(content_length=None, transfer_encoding="chunked")
        self.wfile.write(b"ffff\r\nabc")

    def answer_silent(self):
        self.close_connection = True
        self.server.over.wait(10)

    def answer_drips(self):
        self.close_connection = True
        self.send(content_length=100)
        while not self.server.over.wait(0.05):
            self.wfile.write(b"x")

    def answer_drips_headers(self):
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not self.server.over.wait(0.05):
            self.wfile.write(b"x")

    def answer_noise(self):
        self.close_connection = True
        self.wfile.write(b"\0\1\2 this is not HTTP\r\n\r\n")

    def answer_text(self):
        self.send(body=b"<html>no photo</html>")

    def log_message(self, *_):
        pass


def serving(context=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    server.asked, server.sent, server.over = [], 0, threading.Event()
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@pytest.fixture(scope="module")
def site():
    server = serving()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def known(monkeypatch):
    """Names and the addresses each look-up of them gives, in turn; and how often they were looked up."""
    book, asked = {}, []

    def look_up(host, port):
        asked.append(host)
        answers = book[host]
        ips = answers.pop(0) if len(answers) > 1 else answers[0]
        return tuple(
            links._Address(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip, (ip, port)) for ip in ips.split()
        )

    monkeypatch.setattr(links, "_addresses", look_up)
    book["asked"] = asked
    return book


# ---- fetched


def test_an_allowed_link_is_a_photo_and_its_own_link(site):
    url = f"{site.url}/ann_png?size=big"
    photo = load_photo(url, allow_urls=True, fetcher=LOCAL)
    assert photo.link == url
    assert photo.digest == hashlib.sha256(PHOTO).hexdigest()
    path, headers = site.asked[-1]
    assert path == "/ann_png?size=big"
    assert headers["Host"] == f"127.0.0.1:{site.server_port}"
    assert headers["Accept-Encoding"] == "identity"


def test_redirects_and_chunks_are_followed_to_the_same_photo(site):
    assert LOCAL.fetch(f"{site.url}/moved", MOST) == PHOTO
    assert LOCAL.fetch(f"{site.url}/chunks", MOST) == PHOTO
    assert LOCAL.fetch(f"{site.url}/chunks", len(PHOTO)) == PHOTO


def test_a_link_in_any_letters_is_sent_in_plain_ones(site):
    LOCAL.fetch(f"{site.url}/ann_png?who=Ann Müller#top", MOST)
    assert site.asked[-1][0] == "/ann_png?who=Ann%20M%C3%BCller"


def test_what_is_fetched_is_checked_like_any_bytes(site):
    with pytest.raises(PhotoUnreadable, match=r"/text is not an image \(starts with b'<html>"):
        load_photo(f"{site.url}/text", allow_urls=True, fetcher=LOCAL)


# ---- refused


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[fe80::1]",
        "[fc00::1]",
        "[ff02::1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ],
)
def test_addresses_that_are_not_public_are_refused(host):
    with pytest.raises((PhotoLinkRefused, PhotoUnavailable)) as caught:
        load_photo(f"http://{host}/ann.png", allow_urls=True)
    if isinstance(caught.value, PhotoUnavailable):  # a machine that cannot look such a name up at all
        assert "no host" in str(caught.value)
    else:
        assert "not a public address" in str(caught.value)


@pytest.mark.parametrize("ip", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(ip):
    assert is_public(ip)


@pytest.mark.parametrize(
    "ip", ["fec0::1", "fe80::1%eth0", "2001:db8::1", "192.0.2.1", "198.18.0.1", "2001:0:7f00:1::", "64:ff9b::a00:1"]
)
def test_addresses_of_no_public_use_are_not_public(ip):
    assert not is_public(ip)


def test_a_name_is_refused_when_one_of_its_addresses_is_private(known):
    known["two.example"] = ["93.184.216.34 10.0.0.7"]
    with pytest.raises(PhotoLinkRefused, match=r"10\.0\.0\.7, which is not a public address"):
        Fetcher().fetch("http://two.example/ann.png", MOST)


def test_the_address_that_was_judged_is_the_one_connected_to(known, monkeypatch):
    """A name that is public when judged and private a moment later gains nothing: it is looked up once."""
    known["rebinding.example"] = ["93.184.216.34", "127.0.0.1"]
    connected = []

    class Recorder(socket.socket):
        def connect(self, endpoint):
            connected.append(endpoint)
            raise ConnectionRefusedError("not in a test")

    monkeypatch.setattr(links.socket, "socket", Recorder)
    with pytest.raises(PhotoUnavailable, match="not in a test"):
        Fetcher().fetch("http://rebinding.example/ann.png", MOST)
    assert connected == [("93.184.216.34", 80)]
    assert known["asked"] == ["rebinding.example"]


def test_each_redirect_is_judged_like_a_first_link(site, known, monkeypatch):
    """The first host counts as public here, so that a server on this machine may play it."""
    known["public.example"] = ["127.0.0.1"]
    known["169.254.169.254"] = ["169.254.169.254"]
    known["127.0.0.1"] = ["127.0.0.1"]
    monkeypatch.setattr(links, "is_public", lambda ip: ip == "127.0.0.1")
    fetcher = Fetcher(timeout=2, deadline=3)
    start = f"http://public.example:{site.server_port}"
    assert fetcher.fetch(f"{start}/moved", MOST) == PHOTO
    with pytest.raises(PhotoLinkRefused, match=r"169\.254\.169\.254, which is not a public address"):
        fetcher.fetch(f"{start}/to-metadata", MOST)
    with pytest.raises(PhotoLinkRefused, match="only http and https"):
        fetcher.fetch(f"{start}/to-file", MOST)
    with pytest.raises(PhotoLinkRefused, match="user name or password") as caught:
        fetcher.fetch(f"{start}/to-password", MOST)
    assert "secret" not in str(caught.value) + str(caught.value.details)


@pytest.mark.parametrize(
    "url",
    [
        "http://ann@example.org/a.jpg",
        "http://ann:secret@example.org/a.jpg",
        "http://:@example.org/",
        "ftp://example.org/a.jpg",
        "http:///a.jpg",
        "http://",
        "http://example.org:99999/",
        "http://example.org:x/",
        "http://[::1/",
        "http://" + "a" * 70 + ".example/",
        "http://a..b/",
    ],
)
def test_malformed_links_and_links_with_credentials_are_refused(url, known):
    with pytest.raises(PhotoLinkRefused) as caught:
        Fetcher().fetch(url, MOST)
    assert "secret" not in str(caught.value) + str(caught.value.details)
    assert known["asked"] == []


def test_a_link_cannot_smuggle_lines_into_the_request(site):
    for end in ("\r\nX-Evil: 1", "%0d%0aX-Evil: 1", " HTTP/1.1\r\nX-Evil: 1\r\n\r\n", "\tX", "\0"):
        with contextlib.suppress(FacedexError):
            LOCAL.fetch(f"{site.url}/ann_png?{end}", MOST)
        assert "X-Evil" not in site.asked[-1][1]


def test_messages_hide_passwords_and_stay_short():
    assert masked("https://ann:secret@example.org/a") == "https://***@example.org/a"
    assert masked("https://ann:se@cret@example.org/a@b") == "https://***@example.org/a@b"
    assert len(masked("https://example.org/" + "a" * 10_000)) == 200
    assert masked("http://a/\x1b[31m\n") == "http://a/\\x1b[31m\\x0a"


# ---- unavailable


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("missing", "answered 404"),
        ("nowhere", "answered 302"),
        ("circle", "redirects more than 5 times"),
        ("breaks-off", "broke off after 20 of"),
        ("chunks-break-off", "IncompleteRead"),
        ("noise", "could not be fetched"),
    ],
)
def test_what_cannot_be_fetched_is_unavailable_and_says_why(site, path, seen):
    with pytest.raises(PhotoUnavailable, match=seen):
        LOCAL.fetch(f"{site.url}/{path}", MOST)


def test_an_unknown_host_and_a_closed_port_are_unavailable(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(PhotoUnavailable, match="refused"):
            LOCAL.fetch(f"http://127.0.0.1:{reserved.getsockname()[1]}/", MOST)
    monkeypatch.setattr(links.socket, "getaddrinfo", unknown)
    with pytest.raises(PhotoUnavailable, match=r"no host 'nobody\.example' is known"):
        LOCAL.fetch("http://nobody.example/", MOST)


@pytest.mark.parametrize("path", ["silent", "drips", "drips-headers"])
def test_a_server_that_takes_its_time_is_left(site, path):
    hasty = Fetcher(private_addresses=True, timeout=0.3, deadline=0.6)
    started = time.monotonic()
    with pytest.raises(PhotoUnavailable, match="did not answer in time"):
        hasty.fetch(f"{site.url}/{path}", MOST)
    assert time.monotonic() - started < 3


def test_more_bytes_than_allowed_are_not_taken(site):
    with pytest.raises(PhotoTooLarge, match="announces 1,099,511,627,776 bytes"):
        LOCAL.fetch(f"{site.url}/announces-much", MOST)
    with pytest.raises(PhotoTooLarge, match="holds more than 1,048,576 bytes"):
        LOCAL.fetch(f"{site.url}/endless", MOST)
    assert site.sent < 50 * MOST  # what the network's buffers took besides
    with pytest.raises(PhotoTooLarge):
        load_photo(f"{site.url}/ann_png", allow_urls=True, fetcher=LOCAL, limits=Limits(max_bytes=len(PHOTO) - 1))


@given(st.binary(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_after_http_gives_an_error_of_ours(raw):
    text = raw.decode("utf-8", "surrogateescape")
    kept = links._addresses
    links._addresses = lambda *_: (links._Address(socket.AF_INET, "10.0.0.1", ("10.0.0.1", 80)),)
    try:
        for url in ("http://" + text, "https://example.org:" + text, "http://example.org/" + text):
            with pytest.raises(FacedexError):
                Fetcher().fetch(url, MOST)
    finally:
        links._addresses = kept


# ---- https


@pytest.fixture(scope="module")
def secure_site(tmp_path_factory):
    """A server for the name ann.example, whose certificate nobody trusts but us."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ann.example"
    command += " -addext subjectAltName=DNS:ann.example -keyout key.pem -out cert.pem"
    made = subprocess.run(command.split(), cwd=folder, capture_output=True, check=False)
    if made.returncode:
        pytest.skip("this openssl command cannot make the certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server = serving(context)
    server.trust = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def test_https_is_checked_against_the_name_though_the_address_is_pinned(secure_site, known):
    known["ann.example"] = known["bob.example"] = ["127.0.0.1"]
    port = secure_site.server_port
    trusting = Fetcher(private_addresses=True, timeout=2, deadline=3, tls=secure_site.trust)
    assert trusting.fetch(f"https://ann.example:{port}/ann_png", MOST) == PHOTO
    with pytest.raises(PhotoUnavailable, match=r"bob\.example"):
        trusting.fetch(f"https://bob.example:{port}/ann_png", MOST)
    with pytest.raises(PhotoUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        LOCAL.fetch(f"https://ann.example:{port}/ann_png", MOST)


def test_https_redirects_to_http_are_not_followed(secure_site, known, monkeypatch):
    known["ann.example"] = ["127.0.0.1"]
    monkeypatch.setattr(Site, "answer_moved", lambda self: self.send(302, location="http://ann.example/ann_png"))
    trusting = Fetcher(private_addresses=True, timeout=2, deadline=3, tls=secure_site.trust)
    with pytest.raises(PhotoLinkRefused, match="from https to http"):
        trusting.fetch(f"https://ann.example:{secure_site.server_port}/moved", MOST)


def test_a_plain_server_asked_by_https_is_unavailable(site):
    with pytest.raises(PhotoUnavailable, match="SSL"):
        LOCAL.fetch(f"https://127.0.0.1:{site.server_port}/ann_png", MOST)
