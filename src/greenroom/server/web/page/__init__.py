"""Status page, list of calls and page of a call: plain files. The pages get their data from the API."""

from __future__ import annotations

from importlib import resources

from aiohttp import web

from ..operations import Operation

__all__ = ["PageFiles"]

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    # The page runs and loads only its own files, and no other page may frame it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class PageFiles:
    """Handlers for the files of the status page."""

    def __init__(self) -> None:
        self._files = {
            entry.name: entry.read_bytes()
            for entry in resources.files(__name__).iterdir()
            if entry.name.rpartition(".")[2] in _TYPES
        }

    def operations(self) -> list[Operation]:
        tags = ("page",)
        file, page = {200: "text/plain"}, {200: "text/html"}
        return [
            Operation("GET", "/", self.show_page, "The status page", page, is_open=True, tags=tags),
            Operation("GET", "/calls", self.show_calls, "The list of calls", page, is_open=True, tags=tags),
            Operation("GET", "/calls/{id}", self.show_call, "The page of a call", page, is_open=True, tags=tags),
            *(
                Operation(
                    "GET",
                    f"/page/{name}",
                    self.show_file,
                    f"File {name} of the status page",
                    file,
                    is_open=True,
                    tags=tags,
                )
                for name in sorted(self._files)
                if not name.endswith(".html")
            ),
        ]

    async def show_page(self, request: web.Request) -> web.Response:
        """Return the status page, a live view of the worker. If the worker has a token, the page asks for it."""
        return self._answer("index.html")

    async def show_calls(self, request: web.Request) -> web.Response:
        """Return the page with the list of calls."""
        return self._answer("calls.html")

    async def show_call(self, request: web.Request) -> web.Response:
        """Return the page of one call. It is the same for each id, and gets its data from the API."""
        return self._answer("call.html")

    async def show_file(self, request: web.Request) -> web.Response:
        """Return a file of the status page."""
        return self._answer(request.path.rpartition("/")[2])

    def _answer(self, name: str) -> web.Response:
        kind = _TYPES[name.rpartition(".")[2]]
        return web.Response(body=self._files[name], content_type=kind, charset="utf-8", headers=_HEADERS)
