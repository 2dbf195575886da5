"""Addresses as they may be shown: without the password that a database's may hold."""

from __future__ import annotations

import re


def shown(text: str) -> str:
    """`text` with *** for the password in every scheme://user:password@host in it."""
    return re.sub(r"(://[^\s:/@]*:)[^\s/]*@", r"\1***@", text)
