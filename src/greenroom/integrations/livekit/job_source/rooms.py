"""Client of a LiveKit server's API, with the calls that are needed to start an agent again in its room."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypeVar

import aiohttp
from google.protobuf.message import DecodeError, Message
from livekit.protocol import agent_dispatch, models, room

from ....errors import GreenroomError
from .registrations import Server
from .tokens import Signer

__all__ = ["NotThere", "Rooms", "RoomsError", "people_in"]

TIMEOUT = aiohttp.ClientTimeout(total=5.0)
NOBODY = "greenroom-nobody"
"""Agent name that no worker has. A room that names it does not get the agent of every new room."""
_MACHINES = (models.ParticipantInfo.AGENT, models.ParticipantInfo.EGRESS)

M = TypeVar("M", bound=Message)


class RoomsError(GreenroomError):
    """Failure of a call: the server could not be reached, or refused."""


class NotThere(RoomsError):
    """Failure of a call for a room or a dispatch that does not exist."""


def people_in(participants: list[models.ParticipantInfo]) -> list[str]:
    """Return the identities of the participants with whom an agent can talk."""
    return [participant.identity for participant in participants if participant.kind not in _MACHINES]


class Rooms:
    """API of one server. Every call may raise :class:`RoomsError`."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self._url = server.http_url
        self._signer = Signer(server.api_key, server.api_secret)
        self._session = session
        self._proxy = server.proxy

    async def participants(self, name: str) -> list[models.ParticipantInfo]:
        request = room.ListParticipantsRequest(room=name)
        answer = await self._admin(name, "RoomService/ListParticipants", request, room.ListParticipantsResponse)
        return list(answer.participants)

    async def rooms(self) -> list[models.Room]:
        answer = await self._call(
            "RoomService/ListRooms", room.ListRoomsRequest(), room.ListRoomsResponse, roomList=True
        )
        return list(answer.rooms)

    async def create_room(self, name: str, metadata: str, empty_timeout: int) -> None:
        """Make a room that no agent joins by itself. The server removes it after ``empty_timeout`` empty seconds."""
        nobody = agent_dispatch.RoomAgentDispatch(agent_name=NOBODY)
        request = room.CreateRoomRequest(name=name, metadata=metadata, empty_timeout=empty_timeout, agents=[nobody])
        await self._call("RoomService/CreateRoom", request, models.Room, roomCreate=True)

    async def delete_room(self, name: str) -> None:
        request = room.DeleteRoomRequest(room=name)
        await self._call("RoomService/DeleteRoom", request, room.DeleteRoomResponse, roomCreate=True)

    async def set_metadata(self, name: str, metadata: str) -> None:
        request = room.UpdateRoomMetadataRequest(room=name, metadata=metadata)
        await self._admin(name, "RoomService/UpdateRoomMetadata", request, models.Room)

    # --- dispatches ------------------------------------------------------------------------------

    async def dispatch(self, name: str, dispatch_id: str) -> agent_dispatch.AgentDispatch:
        """Return one dispatch, with its jobs. Raises :class:`NotThere`."""
        request = agent_dispatch.ListAgentDispatchRequest(room=name)
        kind = agent_dispatch.ListAgentDispatchResponse
        answer = await self._admin(name, "AgentDispatchService/ListDispatch", request, kind)
        for dispatch in answer.agent_dispatches:
            if dispatch.id == dispatch_id:
                return dispatch
        raise NotThere(f"room {name!r} has no dispatch {dispatch_id}")

    async def create_dispatch(
        self, old: agent_dispatch.AgentDispatch, attributes: Mapping[str, str]
    ) -> agent_dispatch.AgentDispatch:
        """Make a copy of a dispatch, with further attributes."""
        request = agent_dispatch.CreateAgentDispatchRequest(
            agent_name=old.agent_name,
            room=old.room,
            metadata=old.metadata,
            deployment=old.deployment,
            attributes={**old.attributes, **attributes},
        )
        kind = agent_dispatch.AgentDispatch
        return await self._admin(old.room, "AgentDispatchService/CreateDispatch", request, kind)

    async def delete_dispatch(self, name: str, dispatch_id: str) -> None:
        request = agent_dispatch.DeleteAgentDispatchRequest(room=name, dispatch_id=dispatch_id)
        kind = agent_dispatch.AgentDispatch
        await self._admin(name, "AgentDispatchService/DeleteDispatch", request, kind)

    # --- the wire: Twirp with protobuf bodies ----------------------------------------------------

    async def _admin(self, name: str, method: str, request: Message, kind: type[M]) -> M:
        return await self._call(method, request, kind, roomAdmin=True, room=name)

    async def _call(self, method: str, request: Message, kind: type[M], **grants: Any) -> M:
        headers = {
            "Authorization": f"Bearer {self._signer.api(time.time(), **grants)}",
            "Content-Type": "application/protobuf",
        }
        url = f"{self._url}/twirp/livekit.{method}"
        try:
            async with self._session.post(
                url, data=request.SerializeToString(), headers=headers, timeout=TIMEOUT, proxy=self._proxy
            ) as response:
                body = await response.read()
                if response.status == 200:
                    return kind.FromString(body)
        except (aiohttp.ClientError, OSError) as error:
            raise RoomsError(f"{method} at {self._url} failed: {error or type(error).__name__}") from error
        except DecodeError as error:
            raise RoomsError(f"{method} at {self._url} failed: the answer cannot be decoded: {error}") from error
        problem = NotThere if response.status == 404 else RoomsError
        text = body[:200].decode(errors="replace")
        raise problem(f"{method} at {self._url} failed with HTTP status {response.status}: {text}")
