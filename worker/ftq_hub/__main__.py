"""The local Hub as a command.

python -m ftq_hub --dir ./hub --port 8080 --token hf_me=me:write:my-org
"""

import argparse
import os
import ssl
import sys
from pathlib import Path

from ftq_hub.app import HubApp
from ftq_hub.errors import BadRequest, HubError
from ftq_hub.serve import Tls, run
from ftq_hub.store import HubStore

EXIT_OK = 0  # stopped by SIGTERM or Ctrl-C
EXIT_USAGE = 2  # a bad folder, port or token; argparse exits with it too


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ftq hub", description="A local Hub for demos and tests.")
    parser.add_argument("--dir", type=Path, required=True, help="where repos and users are kept")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument(
        "--content-port", type=int, default=0, help="for large files; 0 takes a free one"
    )
    parser.add_argument("--tls-cert", type=Path, help="PEM file: serve https with it")
    parser.add_argument("--tls-key", type=Path, help="PEM file of the certificate's key")
    parser.add_argument(
        "--token",
        action="append",
        default=[],
        metavar="TOKEN=USER[:ROLE[:ORG[=ROLE],ORG[=ROLE]]]",
        help="add a user; the role is read or write (the default), in an organisation also "
        "contributor or admin",
    )
    return parser


def _add_token(store: HubStore, text: str) -> None:
    token, _, rest = text.partition("=")
    user, _, rest = rest.partition(":")
    role, _, orgs = rest.partition(":")
    parts = [org.partition("=") for org in orgs.split(",") if org]
    roles = {name: org_role or "write" for name, _, org_role in parts}
    store.add_token(token, user, role or "write", roles)


def _tls(cert: Path | None, key: Path | None) -> Tls | None:
    """Return what to serve https with, None for http; raises BadRequest when it cannot be used."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise BadRequest("--tls-cert and --tls-key go together")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except OSError as error:  # an SSLError is one
        raise BadRequest(f"{cert} and {key} are no certificate and its key: {error}") from error
    return Tls(cert, key)


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C and return the exit code."""
    args = _parser().parse_args(argv)
    os.umask(0o077)  # repos and tokens are the user's alone
    try:
        store = HubStore(args.dir)
        for text in args.token:
            _add_token(store, text)
        app, tls = HubApp(store), _tls(args.tls_cert, args.tls_key)
        run(app, args.host, args.port, content_port=args.content_port, tls=tls)
    except (HubError, OSError) as error:
        sys.stderr.write(f"ftq hub: {error}\n")
        return EXIT_USAGE
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
