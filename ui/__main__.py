"""Serve the page.

API_URL=http://localhost:3000 python -m ui        with API_KEY=… where the service asks for a key
"""

import argparse
import os
import signal
import sys
import tempfile

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from client.service import Service, ServiceError


class Headers:
    """Adds the content security policy to every answer."""

    def __init__(self, app: ASGIApp, policy: str) -> None:
        self._app, self._header = app, (b"content-security-policy", policy.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], self._header]
            await send(message)

        await self._app(scope, receive, with_policy if scope["type"] == "http" else send)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m ui", description="The page for moderators.")
    parser.add_argument("--api-url", default=os.environ.get("API_URL", "http://localhost:3000"), help="or API_URL")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 to be reached from other machines")
    parser.add_argument("--port", type=int, default=7860, help="7860 by default")
    parser.add_argument(
        "--root-path", default=os.environ.get("ROOT_PATH", ""), help="behind a proxy: the path before it"
    )
    parser.add_argument("--share", action="store_true", help="a public link for a demo, through Gradio's servers")
    arguments = parser.parse_args()
    try:
        client = Service(arguments.api_url, os.environ.get("API_KEY"))
    except ServiceError as error:
        sys.exit(f"error: {error}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    # For this user alone, and gone when the page ends: Gradio's own folder is open to all of the machine, and stays.
    with tempfile.TemporaryDirectory(prefix="aidetect-page-") as tempfile.tempdir:
        _serve(client, arguments)


def _serve(client: Service, arguments: argparse.Namespace) -> None:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # it would ask the internet for news of itself
    from ui.page import CSS, POLICY, THEME, build  # only now: Gradio looks at both when it is imported

    page = build(client)
    try:
        page.queue(default_concurrency_limit=8).launch(
            server_name=arguments.host,
            server_port=arguments.port,
            root_path=arguments.root_path,
            share=arguments.share,
            quiet=not arguments.share,
            prevent_thread_lock=True,
            ssr_mode=False,
            max_file_size="50mb",
            app_kwargs={
                "middleware": [Middleware(Headers, policy=POLICY)],
                "docs_url": None,
                "redoc_url": None,
                "openapi_url": None,
            },
            theme=THEME,
            css=CSS,
            footer_links=[],
        )
    except OSError as error:  # the port is taken
        sys.exit(f"error: {error}")
    print(f"The page: http://{arguments.host}:{arguments.port}  (Ctrl-C ends it)", flush=True)
    try:
        models = ", ".join(f"{card['name']} {card['version']}" for card in client.models())
        print(f"It asks {client.url}, where these models answer: {models}", flush=True)
    except ServiceError as error:  # the page says so to whoever uses it; this is for who can mend it
        print(f"warning: {error}", file=sys.stderr, flush=True)
    page.block_thread()


if __name__ == "__main__":
    main()
