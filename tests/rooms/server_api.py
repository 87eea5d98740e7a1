"""The LiveKit server's API as tests use it: tokens, rooms, participants, dispatches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType

from livekit import api
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import ParticipantInfo, Room

__all__ = ["ServerApi", "Tokens"]

VALID = timedelta(hours=1)


class Tokens:
    """Tokens signed with one key."""

    def __init__(self, key: str, secret: str) -> None:
        self.key, self.secret = key, secret

    def caller(
        self, identity: str, room: str, *, agents: Sequence[str] = (), attributes: Mapping[str, str] | None = None
    ) -> str:
        """For one who joins a room. ``agents`` are dispatched if this join creates the room."""
        token = self._token().with_identity(identity).with_grants(api.VideoGrants(room_join=True, room=room))
        if attributes:
            token = token.with_attributes(dict(attributes))
        if agents:
            dispatches = [api.RoomAgentDispatch(agent_name=name) for name in agents]
            token = token.with_room_config(api.RoomConfiguration(agents=dispatches))
        return token.to_jwt()

    def worker(self) -> str:
        """For a worker's registration."""
        return self._token().with_grants(api.VideoGrants(agent=True)).to_jwt()

    def _token(self) -> api.AccessToken:
        return api.AccessToken(self.key, self.secret).with_ttl(VALID)


class ServerApi:
    """``async with ServerApi(url, tokens) as api``; raises ``livekit.api.TwirpError`` for what the server refuses."""

    def __init__(self, url: str, tokens: Tokens) -> None:
        self._where = (url, tokens.key, tokens.secret)
        self._api: api.LiveKitAPI

    async def __aenter__(self) -> ServerApi:
        self._api = api.LiveKitAPI(*self._where)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._api.aclose()

    # --- rooms -----------------------------------------------------------------------------------

    async def create_room(self, name: str, *, agents: Sequence[str] = (), metadata: str = "") -> Room:
        """Create a room. Without ``agents`` it gets one dispatch, for workers that have no agent name."""
        dispatches = [api.RoomAgentDispatch(agent_name=agent, metadata=metadata) for agent in agents]
        return await self._api.room.create_room(api.CreateRoomRequest(name=name, agents=dispatches))

    async def delete_room(self, name: str) -> None:
        await self._api.room.delete_room(api.DeleteRoomRequest(room=name))

    async def rooms(self) -> list[Room]:
        return list((await self._api.room.list_rooms(api.ListRoomsRequest())).rooms)

    async def participants(self, room: str) -> list[ParticipantInfo]:
        return list((await self._api.room.list_participants(api.ListParticipantsRequest(room=room))).participants)

    async def remove_participant(self, room: str, identity: str) -> None:
        await self._api.room.remove_participant(api.RoomParticipantIdentity(room=room, identity=identity))

    # --- dispatches ------------------------------------------------------------------------------

    async def dispatch(self, agent_name: str, room: str, *, metadata: str = "", deployment: str = "") -> AgentDispatch:
        """Ask for an agent in a room, which is created if need be."""
        request = api.CreateAgentDispatchRequest(
            agent_name=agent_name, room=room, metadata=metadata, deployment=deployment
        )
        return await self._api.agent_dispatch.create_dispatch(request)

    async def delete_dispatch(self, dispatch_id: str, room: str) -> AgentDispatch:
        return await self._api.agent_dispatch.delete_dispatch(dispatch_id, room)

    async def dispatches(self, room: str) -> list[AgentDispatch]:
        return await self._api.agent_dispatch.list_dispatch(room)
