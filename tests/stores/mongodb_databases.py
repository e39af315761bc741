"""Galleries of their own on a shared MongoDB server."""

import uuid
from urllib.parse import urlsplit

import pymongo


def fresh(url):
    """The URL of a gallery that does not exist yet."""
    parts = urlsplit(url)
    return parts._replace(path=f"/test_{uuid.uuid4().hex}").geturl()


def drop(url):
    """Remove the database that ``fresh`` named."""
    with pymongo.MongoClient(url) as client:
        client.drop_database(urlsplit(url).path.strip("/"))
