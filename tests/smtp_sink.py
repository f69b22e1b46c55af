#!/usr/bin/env python3
"""A mail server for tests: writes each mail that it takes to DIR as one JSON file, decoded.

    smtp_sink.py DIR [--port N] [--tls CERT KEY] [--login USER:PASSWORD]

Prints its port once it listens, and ends when its standard input does. What it answers depends on the recipient:
refused@... is refused for good (550), later@... for now (451), anybody else is taken. --tls offers STARTTLS and
requires it; --login requires AUTH with it.
"""
import argparse
import asyncio
import email
import email.policy
import json
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Sink:
    def __init__(self, options):
        self.options = options
        self.taken = 0

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address.startswith("refused@"):
            return "550 5.1.1 no such person here"
        if address.startswith("later@"):
            return "451 4.2.1 come back later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        self.taken += 1
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        seen = {
            "to": envelope.rcpt_tos,
            "from": envelope.mail_from,
            "tls": session.ssl is not None,
            "headers": {name.lower(): str(value) for name, value in mail.items()},
            "text": mail.get_body(("plain",)).get_content().replace("\r\n", "\n"),
            "html": mail.get_body(("html",)).get_content().replace("\r\n", "\n"),
        }
        path = os.path.join(self.options.dir, f"{os.getpid()}-{self.taken:03}.json")
        with open(path + ".partial", "w") as file:
            json.dump(seen, file)
        os.rename(path + ".partial", path)
        return f"250 2.0.0 taken as {self.taken}"


def authenticator(expected):
    def check(server, session, envelope, mechanism, data):
        given = f"{data.login.decode()}:{data.password.decode()}"
        return AuthResult(success=given == expected, handled=False)

    return check


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tls", nargs=2)
    parser.add_argument("--login")
    options = parser.parse_args()
    settings = {"enable_SMTPUTF8": True, "hostname": "sink.example"}
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.tls)
        settings |= {"tls_context": context, "require_starttls": True}
    if options.login:
        settings |= {"authenticator": authenticator(options.login), "auth_required": True, "auth_require_tls": bool(options.tls)}
    sink = Sink(options)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(sink, loop=loop, **settings), "127.0.0.1", options.port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
