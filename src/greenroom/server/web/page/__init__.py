"""Status page: plain files, served as they are. The page gets its data from the API."""

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
        file = {200: "text/plain"}
        return [
            Operation("GET", "/", self.show_page, "The status page", {200: "text/html"}, is_open=True, tags=tags),
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

    async def show_file(self, request: web.Request) -> web.Response:
        """Return a file of the status page."""
        return self._answer(request.path.rpartition("/")[2])

    def _answer(self, name: str) -> web.Response:
        kind = _TYPES[name.rpartition(".")[2]]
        return web.Response(body=self._files[name], content_type=kind, charset="utf-8", headers=_HEADERS)
