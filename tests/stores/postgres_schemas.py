"""Galleries of their own on a shared PostgreSQL server."""

import uuid

import psycopg


def fresh(url):
    """The URL of a gallery that does not exist yet."""
    return f"{url}?schema=test_{uuid.uuid4().hex}"


def drop(url):
    """Remove the schema that ``fresh`` named."""
    base, _, schema = url.partition("?schema=")
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA IF EXISTS "{schema.partition("&")[0]}" CASCADE'.encode())
